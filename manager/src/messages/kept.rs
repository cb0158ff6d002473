//! The outbox of this manager, with the places where a test has it die: before the node hears of a message, and before what the node
//! answered is noted. Never: decides anything.

use std::ops::Deref;

use chain::sending::{FileOutbox, Outbox, OutboxError, Record, Stage};
use uuid::Uuid;

/// The outbox.
pub(super) struct Kept(FileOutbox);

impl Kept {
    pub(super) const fn new(outbox: FileOutbox) -> Self {
        Self(outbox)
    }
}

impl Deref for Kept {
    type Target = FileOutbox;

    fn deref(&self) -> &FileOutbox {
        &self.0
    }
}

impl Outbox for Kept {
    fn put(&self, record: &Record) -> Result<(), OutboxError> {
        let (before, after) = match record.stage {
            Stage::Intended { .. } => (None, Some("manager.message.intended")),
            Stage::Pushed { .. } => (Some("manager.message.answered"), Some("manager.message.recorded")),
            Stage::Landed { .. } => (None, None),
        };
        let come_to = |point: Option<&str>| {
            if let Some(point) = point {
                stores::crash_point_of(point, record.intent.method.name());
            }
        };
        come_to(before);
        self.0.put(record)?;
        come_to(after);
        Ok(())
    }

    fn forget(&self, id: Uuid) -> Result<(), OutboxError> {
        self.0.forget(id)
    }

    fn all(&self) -> Result<Vec<Record>, OutboxError> {
        self.0.all()
    }
}
