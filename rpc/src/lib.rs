//! The wire between managers, workers and operators: Lotus's JSON-RPC shapes and methods, our extensions, tokens, API
//! info, clients and servers for both sides, and the traits that local and remote workers both fulfil.
