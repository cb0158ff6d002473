//! Lotus's resource table and its environment overrides.

use crate::{ResourceEnvError, ResourceTable};

pub(crate) fn builtin() -> ResourceTable {
    ResourceTable::from_rows([])
}

pub(crate) fn with_environment(
    table: ResourceTable,
    _variable: impl Fn(&str) -> Option<String>,
) -> Result<ResourceTable, ResourceEnvError> {
    Ok(table)
}
