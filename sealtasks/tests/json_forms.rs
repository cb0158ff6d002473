//! The JSON of every task's input, output, executor request and report, letter by letter: executors of others read and
//! write it, and the durable state holds it, so it must not drift.

use sealtasks::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

const COMM_D: &str = "baga6ea4seaqpy7usqklokfx2vxuynmupslkeutzexe2uqurdg5vhtebhxqmpqmy";
const COMM_R: &str = "bagboea4b5abcaaabaibqibiga4eascqlbqgq4dyqcejbgfavcylrqgi2dmob2hq7";
const TICKET: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const SEED: &str = "0202020202020202020202020202020202020202020202020202020202020202";

/// Writes as this text, and the text reads back as the value. `$D`, `$R`, `$T`, `$S` stand for the constants above.
#[track_caller]
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T, json: &str) {
    let json = json.replace("$D", COMM_D).replace("$R", COMM_R).replace("$T", TICKET).replace("$S", SEED);
    assert_eq!(serde_json::to_string(&value).unwrap(), json);
    assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value);
}

fn piece() -> PieceInfo {
    PieceInfo { size: 2048.try_into().unwrap(), cid: COMM_D.parse().unwrap() }
}

fn size() -> UnpaddedPieceSize {
    UnpaddedPieceSize::whole_sector(SectorSize::KiB2)
}

fn cids() -> (SealedCid, UnsealedCid) {
    (COMM_R.parse().unwrap(), COMM_D.parse().unwrap())
}

const RANGE: &str = r#"{"offset":127,"size":254}"#;

fn range() -> UnsealedRange {
    UnsealedRange { offset: 127.try_into().unwrap(), size: 254 }
}

#[test]
fn inputs_up_to_the_replica() {
    let source = PieceSource::Stream;
    check(
        TaskInput::DataCid(DataCidInput { size: size(), source }),
        r#"{"task":"DC","input":{"size":2032,"source":"stream"}}"#,
    );
    let existing = vec![127.try_into().unwrap()];
    check(
        TaskInput::AddPiece(AddPieceInput { existing, size: size(), source: PieceSource::Zeros }),
        r#"{"task":"AP","input":{"existing":[127],"size":2032,"source":"zeros"}}"#,
    );
    check(
        TaskInput::PreCommit1(PreCommit1Input { ticket: Ticket([1; 32]), pieces: vec![piece()] }),
        r#"{"task":"PC1","input":{"ticket":"$T","pieces":[{"size":2048,"cid":"$D"}]}}"#,
    );
    check(
        TaskInput::PreCommit2(PreCommit2Input { pc1: Pc1Output(b"{}".to_vec()) }),
        r#"{"task":"PC2","input":{"pc1":"e30="}}"#,
    );
}

#[test]
fn inputs_of_the_proof() {
    let (ticket, seed, (sealed, unsealed)) = (Ticket([1; 32]), Seed([2; 32]), cids());
    check(
        TaskInput::Commit1(Commit1Input { ticket, seed, pieces: vec![piece()], sealed, unsealed }),
        r#"{"task":"C1","input":{"ticket":"$T","seed":"$S","pieces":[{"size":2048,"cid":"$D"}],"sealed":"$R","unsealed":"$D"}}"#,
    );
    check(
        TaskInput::Commit2(Commit2Input { c1: C1Output(b"{}".to_vec()) }),
        r#"{"task":"C2","input":{"c1":"e30="}}"#,
    );
    check(
        TaskInput::Verify(VerifyInput { ticket, seed, sealed, unsealed, proof: Proof(vec![1, 2, 3]) }),
        r#"{"task":"VERIFY","input":{"ticket":"$T","seed":"$S","sealed":"$R","unsealed":"$D","proof":"AQID"}}"#,
    );
}

#[test]
fn scrubbing() {
    let (sealed, unsealed) = cids();
    check(
        TaskInput::Scrub(ScrubInput { unsealed: Some(unsealed), sealed: Some(sealed) }),
        r#"{"task":"SCRUB","input":{"unsealed":"$D","sealed":"$R"}}"#,
    );
    let (file, verdict) = (FileType::Sealed, ScrubVerdict::LeftOut);
    check(
        TaskOutput::Scrub(vec![ScrubbedFile { file, verdict, detail: "why".to_owned() }]),
        r#"{"task":"SCRUB","output":[{"file":"sealed","verdict":"left_out","detail":"why"}]}"#,
    );
}

#[test]
fn vanilla_proofs() {
    let (sealed, _) = cids();
    check(
        TaskInput::Vanilla(VanillaInput { sealed, challenges: vec![1, 63] }),
        r#"{"task":"VANILLA","input":{"sealed":"$R","challenges":[1,63]}}"#,
    );
    check(TaskOutput::Vanilla(VanillaProof(vec![1, 2, 3])), r#"{"task":"VANILLA","output":"AQID"}"#);
}

#[test]
fn inputs_that_move_and_drop_files() {
    check(TaskInput::Finalize(FinalizeInput {}), r#"{"task":"FIN","input":{}}"#);
    check(
        TaskInput::ReleaseUnsealed(ReleaseUnsealedInput { keep: vec![range()] }),
        &format!(r#"{{"task":"FUS","input":{{"keep":[{RANGE}]}}}}"#),
    );
    let types = FileTypes::SEALED | FileTypes::CACHE;
    check(
        TaskInput::Fetch(FetchInput { types, path_type: PathType::Sealing, mode: AcquireMode::Move }),
        r#"{"task":"GET","input":{"types":6,"path_type":"sealing","mode":"move"}}"#,
    );
    check(
        TaskInput::Fetch(FetchInput { types, path_type: PathType::Storage, mode: AcquireMode::Copy }),
        r#"{"task":"GET","input":{"types":6,"path_type":"storage","mode":"copy"}}"#,
    );
    check(TaskInput::Move(MoveInput { types }), r#"{"task":"MOVE","input":{"types":6}}"#);
    check(
        TaskInput::Unseal(UnsealInput { range: range(), ticket: Ticket([1; 32]), unsealed: cids().1 }),
        &format!(r#"{{"task":"UNS","input":{{"range":{RANGE},"ticket":"$T","unsealed":"$D"}}}}"#),
    );
}

#[test]
fn outputs() {
    let (sealed, unsealed) = cids();
    check(TaskOutput::DataCid(piece()), r#"{"task":"DC","output":{"size":2048,"cid":"$D"}}"#);
    check(TaskOutput::AddPiece(piece()), r#"{"task":"AP","output":{"size":2048,"cid":"$D"}}"#);
    check(TaskOutput::PreCommit1(Pc1Output(b"{}".to_vec())), r#"{"task":"PC1","output":"e30="}"#);
    check(
        TaskOutput::PreCommit2 { unsealed, sealed },
        r#"{"task":"PC2","output":{"unsealed":"$D","sealed":"$R"}}"#,
    );
    check(TaskOutput::Commit1(C1Output(vec![255])), r#"{"task":"C1","output":"/w=="}"#);
    check(TaskOutput::Commit2(Proof(vec![])), r#"{"task":"C2","output":""}"#);
    check(TaskOutput::Finalize, r#"{"task":"FIN"}"#);
    check(TaskOutput::ReleaseUnsealed, r#"{"task":"FUS"}"#);
    check(TaskOutput::Fetch, r#"{"task":"GET"}"#);
    check(TaskOutput::Move, r#"{"task":"MOVE"}"#);
    check(TaskOutput::Unseal, r#"{"task":"UNS"}"#);
    check(TaskOutput::Verify(false), r#"{"task":"VERIFY","output":false}"#);
}

#[test]
fn executor_request_and_reports() {
    let files =
        [(FileType::Cache, "/s/cache/s-t01000-1".into()), (FileType::Sealed, "/s/sealed/s-t01000-1".into())];
    check(
        ExecutorRequest {
            version: ExecutorRequest::VERSION,
            sector: SectorRef { id: SectorId::new(1000, 1), proof: 5.try_into().unwrap() },
            work: TaskInput::Finalize(FinalizeInput {}),
            files: SectorFiles(files.into()),
        },
        r#"{"version":1,"sector":{"id":{"miner":1000,"number":1},"proof":5},"work":{"task":"FIN","input":{}},"files":{"sealed":"/s/sealed/s-t01000-1","cache":"/s/cache/s-t01000-1"}}"#,
    );
    check(ExecutorReport::Done(TaskOutput::Finalize), r#"{"done":{"task":"FIN"}}"#);
    for (class, name) in [
        (FailureClass::Environment, "environment"),
        (FailureClass::Network, "network"),
        (FailureClass::Space, "space"),
        (FailureClass::Compute, "compute"),
        (FailureClass::BadData, "bad_data"),
        (FailureClass::Aborted, "aborted"),
    ] {
        check(
            ExecutorReport::Failed(ExecutorFailure { class, message: "no".into() }),
            &format!(r#"{{"failed":{{"class":"{name}","message":"no"}}}}"#),
        );
    }
}

#[test]
fn call_errors() {
    for number in [0, 100, 101, 102, 7, -1] {
        let code = CallErrorCode::from(number);
        assert_eq!(code.number(), number);
        check(
            CallError { code, message: "gone".into() },
            &format!(r#"{{"code":{number},"message":"gone"}}"#),
        );
    }
}

#[test]
fn unknown_keys_wrong_kinds_and_missing_fields_are_refused() {
    for json in [
        r#"{"task":"FIN","input":{},"more":1}"#,
        r#"{"task":"FIN","input":{"more":1}}"#,
        r#"{"task":"FINALIZE","input":{}}"#,
        r#"{"task":"DC","input":{"size":2032}}"#,
        r#"{"task":"DC","input":{"size":2048,"source":"zeros"}}"#,
        r#"{"task":"DC","input":{"size":2032,"source":"file"}}"#,
        r#"{"task":"PC1","input":{"ticket":"01","pieces":[]}}"#,
        r#"{"task":"C2","input":{"c1":"***"}}"#,
        r#"{"task":"MOVE","input":{"types":64}}"#,
        r#"{"task":"UNS","input":{}}"#,
    ] {
        assert!(serde_json::from_str::<TaskInput>(json).is_err(), "{json} was taken");
    }
    for json in [
        r#"{"task":"AP","output":{"size":2048}}"#,
        r#"{"task":"AP","output":{"size":100,"cid":"baga6ea4seaqpy7usqklokfx2vxuynmupslkeutzexe2uqurdg5vhtebhxqmpqmy"}}"#,
        r#"{"task":"FIN","output":null,"more":1}"#,
        r#"{"task":"VERIFY","output":1}"#,
    ] {
        assert!(serde_json::from_str::<TaskOutput>(json).is_err(), "{json} was taken");
    }
    let request = r#"{"version":1,"sector":{"id":{"miner":1,"number":1},"proof":20},"work":{"task":"FIN","input":{}},"files":{}}"#;
    assert!(serde_json::from_str::<ExecutorRequest>(request).is_err());
    assert!(serde_json::from_str::<ExecutorRequest>(&request.replace("20", "5")).is_ok());
    assert!(
        serde_json::from_str::<ExecutorRequest>(&request.replace("20", "5").replace("{}}", r#"{"x":"/"}}"#))
            .is_err()
    );
}
