//! Connections to stateful services.
