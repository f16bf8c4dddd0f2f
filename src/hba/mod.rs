//! The low-level driver's place, ibmvstgt's: reactors that turn chains into information units and events, and answers into
//! used-ring entries.
