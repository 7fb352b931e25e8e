//! One module per resource: strategy hook-up, subresources, allocators, printer columns.
