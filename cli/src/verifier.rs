//! Verifies a proof in a process of its own: never in the one that made it.

use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use proofs::params::{self, Choice};
use sealtasks::{
    ExecutorReport, ExecutorRequest, SectorFiles, SectorRef, TaskInput, TaskOutput, VerifyInput,
};
use tokio::process::Command;

/// Runs `sealyard exec verify`.
#[derive(Debug)]
pub struct ChildVerifier {
    /// This program.
    pub program: PathBuf,
}

#[async_trait]
impl manager::Verifier for ChildVerifier {
    async fn verify(&self, sector: SectorRef, input: VerifyInput) -> Result<bool, String> {
        let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let (request_file, report_file) = (dir.path().join("request.json"), dir.path().join("report.json"));
        let request = ExecutorRequest {
            version: ExecutorRequest::VERSION,
            sector,
            work: TaskInput::Verify(input),
            files: SectorFiles::default(),
        };
        let bytes = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        tokio::fs::write(&request_file, bytes).await.map_err(|error| error.to_string())?;
        let size = sector.proof.sector_size();
        // Choosing may read the parameter files once to check their digests.
        let choice = tokio::task::spawn_blocking(move || params::choose_directory(size)).await;
        let mut command = Command::new(&self.program);
        if let Ok(Choice::Published(parameters) | Choice::Insecure(parameters)) = choice {
            command.env(params::SHARED_VARIABLE, parameters);
        }
        let output = command
            .args(["exec", "verify", "--input"])
            .arg(&request_file)
            .arg("--output")
            .arg(&report_file)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| format!("{} cannot be started: {error}", self.program.display()))?;
        let report = tokio::fs::read(&report_file).await.map_err(|_| {
            format!("verification ended without a report: {}", String::from_utf8_lossy(&output.stderr).trim())
        })?;
        match serde_json::from_slice(&report) {
            Ok(ExecutorReport::Done(TaskOutput::Verify(valid))) => Ok(valid),
            Ok(ExecutorReport::Failed(failure)) => Err(failure.message),
            Ok(ExecutorReport::Done(_)) => Err("the report is about another task".to_owned()),
            Err(error) => Err(format!("the report is malformed: {error}")),
        }
    }
}
