//! Calls that are written in terms of others, for queries and views alike.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Result, internal_err, plan_err};
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::bool_and_or::bool_and_udaf;
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, ScalarUDF, Signature, SortExpr, Volatility, lit,
};

use super::ordered_set::{Kind, OrderedSet};
use crate::functions::json;

/// Plans aggregate calls: `median(x)` is a percentile, `jsonb_agg(x)` the JSON of an array, and so on.
#[derive(Debug)]
pub struct AggregateCalls;

impl ExprPlanner for AggregateCalls {
    fn plan_aggregate(&self, call: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        let name = call.func.name().to_string();
        let planned = match (name.as_str(), call.args.as_slice()) {
            ("median", [value]) => {
                let udf = Arc::new(AggregateUDF::new_from_impl(OrderedSet::new(Kind::PercentileCont)));
                let order = SortExpr::new(value.clone(), true, false);
                let args = vec![value.clone(), lit(0.5)];
                Expr::AggregateFunction(AggregateFunction::new_udf(
                    udf,
                    args,
                    call.distinct,
                    call.filter,
                    vec![order],
                    None,
                ))
            }
            // Any value will do; the smallest one does not depend on the order of rows.
            ("any_value", [_]) => Expr::AggregateFunction(AggregateFunction::new_udf(
                min_udaf(),
                call.args,
                false,
                call.filter,
                vec![],
                None,
            )),
            ("every", [_]) => Expr::AggregateFunction(AggregateFunction::new_udf(
                bool_and_udaf(),
                call.args,
                false,
                call.filter,
                vec![],
                None,
            )),
            ("jsonb_agg" | "json_agg", [value]) => {
                let element = scalar(json::element_udf(), vec![value.clone()]);
                let array = Expr::AggregateFunction(AggregateFunction::new_udf(
                    array_agg_udaf(),
                    vec![element],
                    call.distinct,
                    call.filter,
                    call.order_by,
                    None,
                ));
                scalar(json::to_json_udf(), vec![array])
            }
            ("jsonb_object_agg" | "json_object_agg", [key, value]) => {
                // Both arrays are in the order of key and value, so that they stay side by side.
                let order = || {
                    vec![SortExpr::new(key.clone(), true, false), SortExpr::new(value.clone(), true, false)]
                };
                let array = |of: &Expr| {
                    Expr::AggregateFunction(AggregateFunction::new_udf(
                        array_agg_udaf(),
                        vec![of.clone()],
                        false,
                        call.filter.clone(),
                        order(),
                        None,
                    ))
                };
                scalar(
                    json::object_of_arrays_udf(),
                    vec![array(key), array(&scalar(json::element_udf(), vec![value.clone()]))],
                )
            }
            _ => return Ok(PlannerResult::Original(call)),
        };
        Ok(PlannerResult::Planned(planned))
    }
}

/// Functions that exist as names only: the planner puts other calls in their place.
pub(super) fn names() -> impl Iterator<Item = AggregateUDF> {
    let names = ["every", "jsonb_agg", "json_agg", "jsonb_object_agg", "json_object_agg"];
    names.into_iter().map(|name| {
        let signature = Signature::variadic_any(Volatility::Immutable);
        AggregateUDF::new_from_impl(Planned { name, signature })
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Planned {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for Planned {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        plan_err!("function {} does not take arguments of this number or kind", self.name)
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        internal_err!("{} is planned as another function", self.name)
    }
}

fn scalar(function: Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(datafusion::logical_expr::expr::ScalarFunction::new_udf(function, args))
}
