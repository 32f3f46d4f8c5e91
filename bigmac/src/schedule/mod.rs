//! Schedules as data: tables of operations, and the functions of such a table.
