//! The file of lost sectors: filecoin-sealer-recover's own form is accepted as it is, and what is wrong is named.

use chain::recovery::{MetadataError, file_name, parse, parse_printed, write};
use sealtasks::{ActorId, SectorNumber};

const TICKET: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
const SEALED: &str = "bagboea4b5abcatlxechwbp7kjpjguna6r6q7ejrhe6mdp3lf34pmswn27pkkiekz";
const PIECE: &str = "baga6ea4seaqao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y6x2mpq";

/// As Go's `json.MarshalIndent(…, "", "\t")` writes filecoin-sealer-recover's structures.
fn original() -> String {
    format!(
        "{{\n\t\"Miner\": \"f01000\",\n\t\"SectorSize\": 34359738368,\n\t\"SectorInfos\": [\n\t\t{{\n\t\t\t\"SectorNumber\": 1,\n\t\t\t\"Ticket\": \"{TICKET}\",\n\t\t\t\"SealProof\": 8,\n\t\t\t\"SealedCID\": {{\n\t\t\t\t\"/\": \"{SEALED}\"\n\t\t\t}}\n\t\t}},\n\t\t{{\n\t\t\t\"SectorNumber\": 7,\n\t\t\t\"Ticket\": \"{TICKET}\",\n\t\t\t\"SealProof\": 3,\n\t\t\t\"SealedCID\": {{\n\t\t\t\t\"/\": \"{SEALED}\"\n\t\t\t}}\n\t\t}}\n\t]\n}}"
    )
}

#[test]
fn the_original_form_is_read_and_written_byte_for_byte() {
    let text = original();
    let metadata = parse(text.as_bytes()).expect("the original form");
    assert_eq!(metadata.miner, ActorId::new(1000));
    assert_eq!(metadata.sectors.len(), 2);
    assert_eq!(metadata.sectors[1].number, SectorNumber::new(7));
    assert_eq!(metadata.sectors[0].sealed.to_string(), SEALED);
    assert_eq!((metadata.sectors[0].ticket.0[0], metadata.sectors[0].ticket.0[31]), (1, 32));
    assert_eq!(write(&metadata), text);
    assert_eq!(file_name(metadata.miner), "sectors-recovery-f01000.json");
    // A test network's prefix, keys of a later version, another order, no white space.
    let other =
        text.replace("f01000", "t01000").replace("\"SealProof\": 8", "\"Later\":[{}],\"SealProof\":8");
    assert_eq!(parse(other.as_bytes()), Ok(metadata));
}

#[test]
fn sectors_with_deals_keep_their_pieces() {
    let deals = format!(
        "\"SealProof\": 8,\"UnsealedCID\":{{\"/\":\"{PIECE}\"}},\"Pieces\":[{{\"Size\":1024,\"PieceCID\":{{\"/\":\"{PIECE}\"}}}}]"
    );
    let text = original().replace("\"SealProof\": 8", &deals);
    let metadata = parse(text.as_bytes()).expect("a sector with pieces");
    assert_eq!(metadata.sectors[0].pieces.len(), 1);
    assert_eq!(metadata.sectors[0].unsealed, Some(PIECE.parse().expect("a CID")));
    assert_eq!(parse(write(&metadata).as_bytes()), Ok(metadata));
}

/// Each mistake is one error that names the sector and the key.
#[test]
fn mistakes_are_named() {
    let cases = [
        (
            "\"SectorNumber\": 7",
            "\"SectorNumber\": \"7\"",
            "sector entry 2 of SectorInfos: SectorNumber is missing or no whole number",
        ),
        ("\"SectorNumber\": 7", "\"SectorNumber\": 1", "sector 1 is in the file twice"),
        (
            "\"SealProof\": 3",
            "\"SealProof\": 30",
            "sector 7: SealProof: 30 is no registered seal proof; known are 0 to 19",
        ),
        (
            "\"SealProof\": 3",
            "\"SealProof\": 5",
            "sector 7: SealProof: proof 5 is for 2KiB sectors, and the file's are 32GiB",
        ),
        ("\"SealProof\": 3,", "", "sector 7: SealProof: it is missing"),
        ("\"SealProof\": 3", "\"SealProof\": null", "sector 7: SealProof: it is missing"),
        (
            "\"SealProof\": 3",
            "\"SealProof\": \"3\"",
            "sector 7: SealProof: expected a whole number, not a text",
        ),
        (
            "\"Miner\": \"f01000\"",
            "\"Miner\": \"f3abc\"",
            "Miner: \"f3abc\" is no miner address; expected an id address such as f01000 or t01000",
        ),
        (
            "\"SectorSize\": 34359738368",
            "\"SectorSize\": 32",
            "SectorSize: 32 is no sector size; 2 KiB is 2048, 32 GiB is 34359738368",
        ),
        ("\"SectorInfos\": [", "\"Sectors\": [", "SectorInfos: it is missing"),
    ];
    for (from, to, expected) in cases {
        let text = original();
        assert!(text.contains(from), "{from}");
        let error = parse(text.replacen(from, to, 1).as_bytes()).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
    let second = |from: &str, to: &str| {
        let text = original();
        let (first, second) = text.split_at(text.rfind("SectorNumber").expect("two sectors"));
        parse(format!("{first}{}", second.replace(from, to)).as_bytes()).expect_err(to).to_string()
    };
    assert_eq!(
        second(SEALED, PIECE),
        format!("sector 7: SealedCID: \"{PIECE}\" is not a commitment to a replica (bagboea4b5abc…)")
    );
    assert_eq!(second("\"/\": ", "\"cid\": "), "sector 7: SealedCID: expected {\"/\": \"<CID>\"}");
    assert!(second(SEALED, "bagboea4b5abc").starts_with("sector 7: SealedCID: "));
    assert_eq!(second(TICKET, "AQID"), "sector 7: Ticket: expected 32 bytes in base64");
    let pieces = |size: &str| {
        let piece = format!("{{\"Size\":{size},\"PieceCID\":{{\"/\":\"{PIECE}\"}}}}");
        second("\"SealProof\"", &format!("\"Pieces\":[{piece},{piece}],\"SealProof\""))
    };
    assert!(pieces("1000").starts_with("sector 7: Size: 1000 bytes is no padded piece size"));
    assert_eq!(pieces("34359738368"), "sector 7: Pieces: they do not fit into a 32GiB sector");
}

#[test]
fn what_is_no_such_file_is_refused() {
    for bad in ["", "{", "[]", "null", "{}x", "\u{feff}{}", "\"Miner\""] {
        assert!(matches!(parse(bad.as_bytes()), Err(MetadataError::Json { .. })), "{bad:?}");
    }
    let cut = original();
    for end in 0..cut.len() {
        assert!(parse(&cut.as_bytes()[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(parse(b"{}").expect_err("empty").to_string(), "Miner: it is missing");
}

/// A PreCommit message's body as filecoin-sealer-recover's manual shows it.
fn printed() -> String {
    format!(
        "{{\"RegisteredProof\": 9, \"SectorNumber\": 1322006, \"SealedCid\": \"{SEALED}\", \"SealRandEpoch\": 925221, \
         \"DealIds\": [], \"Expiration\": 2480426, \"ReplaceCapacity\": false, \"ReplaceSectorDeadline\": 0, \
         \"ReplaceSectorPartition\": 0, \"ReplaceSector\": 0}}"
    )
}

#[test]
fn printed_bodies_are_read_in_every_form() {
    let go = format!(
        "{{\"SealProof\":9,\"SectorNumber\":1322006,\"SealedCID\":{{\"/\":\"{SEALED}\"}},\"SealRandEpoch\":925221,\
         \"DealIDs\":null,\"Expiration\":2480426,\"UnsealedCid\":null}}"
    );
    let in_a_list = format!("[{}]", printed());
    let in_a_batch = format!("{{\"Sectors\":[{go}]}}");
    let of_a_node = format!("{{\"Info\":{go},\"PreCommitDeposit\":\"1\",\"PreCommitEpoch\":926000}}");
    let first = parse_printed(printed().as_bytes()).expect("the manual's form");
    assert_eq!(first[0].number(), SectorNumber::new(1322006));
    for text in [go, in_a_list, in_a_batch, of_a_node] {
        let printed = parse_printed(text.as_bytes()).expect("printed");
        assert_eq!(format!("{printed:?}"), format!("{first:?}"), "{text}");
    }
}

#[test]
fn mistakes_in_printed_bodies_are_named() {
    for (from, to, expected) in [
        (
            "\"SectorNumber\": 1322006",
            "\"Number\": 1",
            "sector entry 1 of the PreCommit bodies: SectorNumber is missing or no whole number",
        ),
        (
            "\"RegisteredProof\": 9",
            "\"RegisteredProof\": 30",
            "sector 1322006: SealProof: 30 is no registered seal proof; known are 0 to 19",
        ),
        (
            "\"RegisteredProof\": 9",
            "\"RegisteredProof\": 9, \"SealProof\": 8",
            "sector entry 1 of the PreCommit bodies: SealProof is there twice",
        ),
        ("\"SealedCid\"", "\"Cid\"", "sector 1322006: SealedCID: it is missing"),
        ("925221", "-1", "sector 1322006: SealRandEpoch: -1 is no height"),
        ("925221", "\"925221\"", "sector 1322006: SealRandEpoch: expected a whole number, not a text"),
        ("[]", "[\"7\"]", "sector 1322006: DealIDs: expected whole numbers in the list"),
        ("[]", "7", "sector 1322006: DealIDs: expected a list, not a number"),
    ] {
        let text = printed();
        assert!(text.contains(from), "{from}");
        let error = parse_printed(text.replacen(from, to, 1).as_bytes()).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
    let other = printed().replace(SEALED, PIECE);
    let error = parse_printed(other.as_bytes()).expect_err("CommP").to_string();
    assert!(error.starts_with("sector 1322006: SealedCID: "), "{error}");
    let twice = format!("[{0},{0}]", printed());
    let error = parse_printed(twice.as_bytes()).expect_err("twice").to_string();
    assert_eq!(error, "sector 1322006 is in the file twice");
    for bad in ["", "7", "\"a\"", "{", "null"] {
        assert!(matches!(parse_printed(bad.as_bytes()), Err(MetadataError::Json { .. })), "{bad:?}");
    }
    assert!(parse_printed(b"[7]").is_err() && parse_printed(b"{\"Info\":null}").is_err());
}
