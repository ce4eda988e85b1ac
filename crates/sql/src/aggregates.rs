//! Aggregate functions that shops expect and DataFusion lacks, or has in another form.
//!
//! Their batch form is here, and with it what both forms share, so that a view equals its query: the fraction's
//! reading and interpolation ([`ordered_set`]) and the sketches ([`sketch`]). The engine keeps the states of views.

mod approximate;
pub mod ordered_set;
mod rewrite;
pub mod sketch;

use std::sync::Arc;

use datafusion::logical_expr::AggregateUDF;

pub use approximate::{DEFAULT_ACCURACY, ValueHasher, accuracy};
pub use rewrite::AggregateCalls;

/// All aggregate functions of this module, to be registered over DataFusion's own.
pub fn all() -> Vec<Arc<AggregateUDF>> {
    use ordered_set::{Kind, OrderedSet};
    let functions = [
        AggregateUDF::new_from_impl(OrderedSet::new(Kind::PercentileCont)),
        AggregateUDF::new_from_impl(OrderedSet::new(Kind::PercentileDisc)),
        AggregateUDF::new_from_impl(OrderedSet::new(Kind::Mode)),
        AggregateUDF::new_from_impl(approximate::ApproxCountDistinct::new()),
        AggregateUDF::new_from_impl(approximate::ApproxPercentile::new()),
    ];
    functions.into_iter().chain(rewrite::names()).map(Arc::new).collect()
}
