//! The resource table against Lotus's figures, its environment overrides, threads and space.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sealtasks::*;

/// Tasks, sizes, min, max, threads, threads with a GPU, GPUs, shared memory; as in Lotus's resources.go.
const LOTUS: &str = "
AP              64G            8G   8G    1 0 0 1G
AP,DC           32G            4G   4G    1 0 0 1G
AP              512M           1G   1G    1 0 0 1G
AP              8M             8M   8M    1 0 0 8M
AP              2K             2K   2K    1 0 0 2K
DC              64G,512M,8M,2K 4G   4G    1 0 0 1G
PC1,UNS         64G            112G 128G  1 0 0 10M
PC1,UNS         32G            56G  64G   1 0 0 10M
PC1,UNS         512M           768M 1G    1 0 0 1M
PC1,UNS         8M             8M   8M    1 0 0 8M
PC1,UNS         2K             2K   2K    1 0 0 2K
PC2             64G            30G  30G   -1 6 1 1G
PC2             32G            15G  15G   -1 6 1 1G
PC2             512M           1G   1536M -1 0 0 1G
PC2             8M             8M   8M    -1 0 0 8M
PC2             2K             2K   2K    -1 0 0 2K
C1,PR1          64G,32G,512M   1G   1G    0 0 0 1G
C1,PR1          8M             8M   8M    0 0 0 8M
C1,PR1          2K             2K   2K    0 0 0 2K
C2,PR2          64G            60G  190G  -1 6 1 64G
C2,PR2          32G            30G  150G  -1 6 1 32G
C2,PR2,WDP      512M           1G   1536M 1 0 1 10G
C2,PR2,WDP,WNP  8M             8M   8M    1 0 1 8M
C2,PR2,WDP,WNP  2K             2K   2K    1 0 1 2K
GET             64G,32G,512M,8M,2K 1M 1M  0 0 0 0K
RU,GSK          64G            8G   8G    1 6 1 1G
RU,GSK          32G            4G   4G    1 6 1 1G
RU,GSK          512M           1G   1G    1 0 1 1G
RU,GSK          8M             8M   8M    1 0 1 8M
RU,GSK          2K             2K   2K    1 0 1 2K
WDP             64G            60G  120G  -1 6 1 64G
WDP             32G            30G  96G   -1 6 1 32G
WNP             64G            1G   1G    -1 6 1 64G
WNP             32G            1G   1G    -1 6 1 32G
WNP             512M           2K   2K    1 0 1 10G
";

fn bytes(text: &str) -> u64 {
    let (digits, unit) = text.split_at(text.len() - 1);
    digits.parse::<u64>().unwrap()
        << [("K", 10), ("M", 20), ("G", 30)].iter().find(|u| u.0 == unit).unwrap().1
}

fn lotus_rows() -> BTreeMap<(TaskType, SectorSize), Resources> {
    let mut rows = BTreeMap::new();
    for line in LOTUS.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let row = Resources {
            min_memory: bytes(words[2]),
            max_memory: bytes(words[3]),
            gpu_utilization: words[6].parse().unwrap(),
            max_parallelism: words[4].parse().unwrap(),
            max_parallelism_gpu: words[5].parse().unwrap(),
            base_min_memory: bytes(words[7]),
            max_concurrent: 0,
        };
        for task in words[0].split(',') {
            for short in words[1].split(',') {
                let size = SectorSize::ALL.into_iter().find(|size| size.short() == short).unwrap();
                assert!(
                    rows.insert((TaskType::from_short(task).unwrap(), size), row).is_none(),
                    "{line} is twice"
                );
            }
        }
    }
    rows
}

#[test]
fn the_table_is_lotus_s_for_every_task_and_proof() {
    let (table, lotus) = (ResourceTable::builtin(), lotus_rows());
    for task in TaskType::ALL {
        for proof in RegisteredSealProof::all() {
            let expected = match proof.feature() {
                ProofFeature::NonInteractive => None,
                ProofFeature::None | ProofFeature::Synthetic => {
                    lotus.get(&(*task, proof.sector_size())).copied()
                }
            };
            assert_eq!(table.get(*task, proof), expected, "{task} with proof {proof}");
        }
    }
    assert_eq!(table.rows().count(), 14 * 15);
}

fn environment<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn row(set: &[(&str, &str)], task: TaskType, proof: i64) -> Resources {
    let table = ResourceTable::from_environment(environment(set)).unwrap();
    table.get(task, proof.try_into().unwrap()).unwrap()
}

#[test]
fn the_sized_variable_beats_the_other() {
    let set = [("PC2_MAX_MEMORY", "7"), ("PC2_32G_MAX_MEMORY", "9")];
    for proof in [3, 8, 13] {
        assert_eq!(row(&set, TaskType::PreCommit2, proof).max_memory, 9, "proof {proof}");
    }
    assert_eq!(row(&set, TaskType::PreCommit2, 5).max_memory, 7);
    assert_eq!(row(&set, TaskType::PreCommit2, 8).min_memory, 15 << 30);
    assert_eq!(row(&set, TaskType::PreCommit1, 8).max_memory, 64 << 30);
}

#[test]
fn every_field_can_be_set() {
    let set = [
        ("C2_MIN_MEMORY", "1"),
        ("C2_MAX_MEMORY", "2"),
        ("C2_GPU_UTILIZATION", "0.5"),
        ("C2_MAX_PARALLELISM", "-1"),
        ("C2_MAX_PARALLELISM_GPU", "4"),
        ("C2_BASE_MIN_MEMORY", "5"),
        ("C2_MAX_CONCURRENT", "6"),
    ];
    let expected = Resources {
        min_memory: 1,
        max_memory: 2,
        gpu_utilization: 0.5,
        max_parallelism: -1,
        max_parallelism_gpu: 4,
        base_min_memory: 5,
        max_concurrent: 6,
    };
    assert_eq!(row(&set, TaskType::Commit2, 5), expected);
    assert_eq!(row(&[("DC_MAX_PARALLELISM", "3")], TaskType::DataCid, 8).max_parallelism, 3);
    assert_eq!(row(&[("DC_32G_MAX_PARALLELISM", "3")], TaskType::DataCid, 8).max_parallelism, 3);
}

#[test]
fn multicore_sdr_sets_the_threads_of_pc1_and_unseal() {
    let on = ("FIL_PROOFS_USE_MULTICORE_SDR", "1");
    let producers = ("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", "6");
    let threads = |set: &[(&str, &str)]| {
        [TaskType::PreCommit1, TaskType::Unseal, TaskType::AddPiece]
            .map(|task| row(set, task, 8).max_parallelism)
    };
    assert_eq!(threads(&[]), [1, 1, 1]);
    assert_eq!(threads(&[on]), [4, 4, 1]);
    assert_eq!(threads(&[on, producers]), [7, 7, 1]);
    assert_eq!(threads(&[producers]), [1, 1, 1]);
    assert_eq!(threads(&[("FIL_PROOFS_USE_MULTICORE_SDR", "0"), producers]), [1, 1, 1]);
    assert_eq!(threads(&[on, producers, ("PC1_MAX_PARALLELISM", "2")]), [2, 7, 1]);
    assert_eq!(threads(&[on, ("UNS_32G_MAX_PARALLELISM", "3")]), [4, 3, 1]);
}

/// TestListResourceOverride, TestUnsizedSetAll and TestUnsizedNotPreferred of Lotus with their own values.
#[test]
fn lotus_s_overrides_have_lotus_s_outcome() {
    let set =
        [("UNS_2K_MAX_PARALLELISM", "2"), ("PC2_2K_GPU_UTILIZATION", "0.4"), ("PC2_2K_MAX_MEMORY", "2222")];
    for proof in [0, 5, 10] {
        assert_eq!(row(&set, TaskType::Unseal, proof).max_parallelism, 2, "proof {proof}");
        assert_eq!(row(&set, TaskType::PreCommit2, proof).gpu_utilization, 0.4, "proof {proof}");
        assert_eq!(row(&set, TaskType::PreCommit2, proof).max_memory, 2222, "proof {proof}");
    }
    assert_eq!(row(&set, TaskType::Unseal, 8).max_parallelism, 1, "other sizes are as they were");
    let for_all_sizes = [("UNS_MAX_PARALLELISM", "2")];
    for proof in 0..15 {
        assert_eq!(row(&for_all_sizes, TaskType::Unseal, proof).max_parallelism, 2, "proof {proof}");
    }
    let both = [("UNS_MAX_PARALLELISM", "2"), ("UNS_2K_MAX_PARALLELISM", "3")];
    assert_eq!([5, 8].map(|proof| row(&both, TaskType::Unseal, proof).max_parallelism), [3, 2]);
    assert_eq!(
        row(&[], TaskType::PreCommit2, 5),
        row(&[], TaskType::PreCommit2, 0),
        "the built-in rows stay"
    );
}

/// TestListResourceSDRMulticoreOverride asks for 9000 producers and gets 9001 threads. Here that many are refused: no
/// machine has them, and the worker would never be given a PreCommit1.
#[test]
fn more_producers_than_any_machine_has_are_refused() {
    let with = |producers: &str| {
        let producers = producers.to_owned();
        ResourceTable::from_environment(move |name| match name {
            "FIL_PROOFS_USE_MULTICORE_SDR" => Some("1".to_owned()),
            "FIL_PROOFS_MULTICORE_SDR_PRODUCERS" => Some(producers.clone()),
            _ => None,
        })
    };
    let error = with("9000").unwrap_err();
    assert_eq!((error.name.as_str(), error.value.as_str()), ("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", "9000"));
    let most = with("1024").unwrap().get(TaskType::PreCommit1, 8.try_into().unwrap()).unwrap();
    assert_eq!(most.max_parallelism, 1025);
}

#[test]
fn a_malformed_number_names_its_variable_and_value() {
    let on = ("FIL_PROOFS_USE_MULTICORE_SDR", "1");
    for (name, value) in [
        ("PC1_MIN_MEMORY", "64GiB"),
        ("PC1_32G_MAX_MEMORY", "-1"),
        ("PC1_MAX_MEMORY", ""),
        ("AP_BASE_MIN_MEMORY", "+1"),
        ("AP_BASE_MIN_MEMORY", "18446744073709551616"),
        ("C2_GPU_UTILIZATION", "NaN"),
        ("C2_GPU_UTILIZATION", "inf"),
        ("C2_GPU_UTILIZATION", "-0.5"),
        ("C2_MAX_PARALLELISM", "-2"),
        ("C2_MAX_PARALLELISM_GPU", "1.5"),
        ("GET_MAX_CONCURRENT", "ten"),
        ("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", "many"),
        ("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", "-1"),
    ] {
        let set = [(name, value), on];
        let error = ResourceTable::from_environment(environment(&set)).unwrap_err();
        assert_eq!((error.name.as_str(), error.value.as_str()), (name, value));
        assert!(error.to_string().starts_with(&format!("{name}={value:?}: expected ")), "{error}");
        assert_eq!(ResourceTable::variables(environment(&set)).unwrap_err().name, name);
    }
}

#[test]
fn the_listing_says_what_is_in_force_and_what_would_be() {
    let set = [("PC2_MAX_MEMORY", "7"), ("PC2_32G_MAX_MEMORY", "9"), ("FIL_PROOFS_USE_MULTICORE_SDR", "1")];
    let listed = ResourceTable::variables(environment(&set)).unwrap();
    assert_eq!(listed.len(), 14 * 7 * 6, "14 task types, 7 fields, 5 sizes and the form without one");
    assert!(listed.is_sorted_by(|a, b| a.name < b.name));
    let get = |name: &str| listed.iter().find(|entry| entry.name == name).unwrap();
    let check = |name: &str, set: Option<&str>, default: Option<&str>, effective: Option<&str>| {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let expected = ResourceVariable {
            name: name.to_owned(),
            set: owned(set),
            default: owned(default),
            effective: owned(effective),
        };
        assert_eq!(*get(name), expected);
    };
    check("PC2_32G_MAX_MEMORY", Some("9"), Some("16106127360"), Some("9"));
    check("PC2_64G_MAX_MEMORY", None, Some("32212254720"), Some("7"));
    check("PC2_MAX_MEMORY", Some("7"), None, Some("7"));
    check("PC2_MIN_MEMORY", None, None, None);
    check("PC2_32G_GPU_UTILIZATION", None, Some("1"), Some("1"));
    check("PC1_2K_MAX_PARALLELISM", None, Some("4"), Some("4"));
}

proptest! {
    #[test]
    fn what_is_listed_as_effective_is_what_the_table_holds(
        task in 0..TaskType::ALL.len(), size in 0..5usize, with_size in any::<bool>(), value in any::<u64>(),
    ) {
        let (task, size) = (TaskType::ALL[task], SectorSize::ALL[size]);
        let sized = format!("{}_{}_MIN_MEMORY", task.short(), size.short());
        let name = if with_size { sized.clone() } else { format!("{}_MIN_MEMORY", task.short()) };
        let lookup = |asked: &str| (asked == name).then(|| value.to_string());
        let table = ResourceTable::from_environment(lookup).unwrap();
        let row = table.get(task, RegisteredSealProof::for_new_sector(size));
        let listed = ResourceTable::variables(lookup).unwrap();
        let entry = listed.iter().find(|entry| entry.name == sized);
        prop_assert_eq!(row.map(|row| row.min_memory), entry.map(|_| value));
        prop_assert_eq!(entry.and_then(|entry| entry.effective.clone()), row.map(|_| value.to_string()));
    }
}

#[test]
fn all_threads_means_92_percent() {
    let all = Resources { max_parallelism: -1, ..Resources::default() };
    for (cpus, threads) in
        [(0, 0), (1, 1), (2, 1), (12, 11), (16, 14), (24, 22), (32, 29), (64, 58), (128, 117)]
    {
        assert_eq!(all.threads(cpus, 0), threads, "{cpus} CPUs");
    }
    all.threads(u64::MAX, 0);
}

#[test]
fn a_gpu_changes_the_threads_only_of_tasks_that_use_it() {
    let pc2 = Resources {
        gpu_utilization: 1.0,
        max_parallelism: -1,
        max_parallelism_gpu: 6,
        ..Resources::default()
    };
    assert_eq!((pc2.threads(64, 0), pc2.threads(64, 1)), (58, 6));
    let inherits = Resources { max_parallelism_gpu: 0, ..pc2 };
    assert_eq!(inherits.threads(64, 1), 58);
    let no_gpu = Resources { gpu_utilization: 0.0, ..pc2 };
    assert_eq!(no_gpu.threads(64, 1), 58);
}

#[test]
fn space_follows_lotus_s_tables() {
    let sealing = [10, 10, 141, 10, 21, 10];
    let finalized = [10, 10, 1, 10, 1, 10];
    for size in SectorSize::ALL {
        for (position, kind) in FileType::ALL.into_iter().enumerate() {
            assert_eq!(
                sealing_space(kind.into(), size),
                sealing[position] * size.bytes() / 10,
                "{kind} {size}"
            );
            assert_eq!(
                finalized_space(kind.into(), size),
                finalized[position] * size.bytes() / 10,
                "{kind} {size}"
            );
        }
    }
    let both = FileTypes::SEALED | FileTypes::CACHE;
    assert_eq!(sealing_space(both, SectorSize::KiB2), 2048 + 28876);
    assert_eq!(sealing_space(FileTypes::NONE, SectorSize::GiB64), 0);
    assert_eq!(PathType::Sealing.space_table(), SpaceTable::Sealing);
    assert_eq!(PathType::Storage.space_table(), SpaceTable::Finalized);
}
