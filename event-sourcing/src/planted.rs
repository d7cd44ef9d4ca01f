//! How a defect of the simulator's catalogue stands in the code: as a condition that is constantly false without the feature `sim`, and
//! in it true only for runs that ask for that defect.

/// Whether a run of the simulator on this thread has this defect.
#[cfg(feature = "sim")]
macro_rules! planted {
    ($bug:ident) => {
        $crate::sim::is_planted($crate::sim::PlantedBug::$bug)
    };
}

#[cfg(not(feature = "sim"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}
