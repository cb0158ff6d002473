//! AddPiece and DataCid: piece data into an unsealed file, or only into its commitment. The work is the room
//! `pieces`'; here its errors get their classes.

use std::fs::File;

use pieces::{PartialFileError, PieceData, PieceError};
use sealtasks::{AddPieceInput, DataCidInput, FailureClass, FileType, PieceSource, SectorRef, TaskOutput};

use crate::TaskError;
use crate::failure::{chain, class_of_io};
use crate::files::Files;

/// Writes one piece behind the existing ones.
pub(crate) fn add_piece(
    sector: &SectorRef,
    files: &Files<'_>,
    input: &AddPieceInput,
    stream: Option<File>,
) -> Result<TaskOutput, TaskError> {
    let unsealed = files.path(FileType::Unsealed)?;
    let size = sector.proof.sector_size();
    let data = piece_data(input.source, stream.as_ref(), files.task)?;
    pieces::add_piece(unsealed, size, &input.existing, input.size, data)
        .map(TaskOutput::AddPiece)
        .map_err(|error| piece_error("AddPiece", &error))
}

/// Computes a piece's commitment and keeps nothing.
pub(crate) fn data_cid(input: &DataCidInput, stream: Option<File>) -> Result<TaskOutput, TaskError> {
    let data = piece_data(input.source, stream.as_ref(), "DC")?;
    let piece = pieces::data_cid(input.size, data).map_err(|error| piece_error("DataCid", &error))?;
    Ok(TaskOutput::DataCid(piece))
}

/// Where the bytes come from; a regular file's holes are not read.
fn piece_data<'a>(
    source: PieceSource,
    stream: Option<&'a File>,
    task: &'static str,
) -> Result<PieceData<'a>, TaskError> {
    match source {
        PieceSource::Zeros => Ok(PieceData::Zeros),
        PieceSource::Stream => stream.map(PieceData::File).ok_or(TaskError::NoStream { task }),
    }
}

/// An error about piece data with its class.
fn piece_error(doing: &'static str, error: &PieceError) -> TaskError {
    let class = match error {
        PieceError::NoRoom { .. }
        | PieceError::Misaligned { .. }
        | PieceError::SourceShort { .. }
        | PieceError::SourceLong { .. } => FailureClass::BadData,
        // Whoever sends the bytes may send them again.
        PieceError::Source(_) => FailureClass::Network,
        PieceError::File(error) => class_of_partial_file(error),
        // The file on this disk does not hold what it should; and errors of later versions.
        _ => FailureClass::Environment,
    };
    TaskError::Pieces { doing, message: chain(error), class }
}

/// An error about an unsealed file with its class.
pub(crate) fn partial_file_error(doing: &'static str, error: &PartialFileError) -> TaskError {
    TaskError::Pieces { doing, message: chain(error), class: class_of_partial_file(error) }
}

fn class_of_partial_file(error: &PartialFileError) -> FailureClass {
    match error {
        PartialFileError::NoSpace { .. } => FailureClass::Space,
        PartialFileError::Io { source, .. } => class_of_io(source),
        PartialFileError::OutsideSector { .. } | PartialFileError::RawOutsideSector { .. } => {
            FailureClass::BadData
        }
        _ => FailureClass::Environment,
    }
}
