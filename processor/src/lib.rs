//! Runs handlers over subscriptions.
