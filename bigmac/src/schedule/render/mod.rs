//! Pictures of schedules.
