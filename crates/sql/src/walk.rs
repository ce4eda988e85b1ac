//! Walks over syntax trees that the compiler has to make once.
//!
//! sqlparser's `VisitMut::visit` is compiled anew for each visitor: some thousand functions for all the kinds of nodes.
//! With ten visitors that was most of this crate's build. Here every visitor goes through one adapter, which is the only
//! visitor that the tree's code is compiled for; each node costs a virtual call, and statements are small.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Select, TableFactor, VisitMut, VisitorMut};

/// Shows the nodes under `node` to the visitor, which may change them. Only the hooks for queries, SELECTs, relations and
/// expressions are called.
pub(crate) fn walk<N: VisitMut, V: VisitorMut>(node: &mut N, visitor: &mut V) -> ControlFlow<V::Break> {
    let mut stopped = None;
    let mut hooks = Visiting { visitor, stopped: &mut stopped };
    let _ = node.visit(&mut Adapter(&mut hooks));
    match stopped {
        Some(value) => ControlFlow::Break(value),
        None => ControlFlow::Continue(()),
    }
}

/// Shows the expressions in `expr` to `see`, the outer ones first.
pub(crate) fn for_each_expr(expr: &Expr, see: impl FnMut(&Expr)) {
    struct Seen<F>(F);
    impl<F: FnMut(&Expr)> VisitorMut for Seen<F> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            (self.0)(expr);
            ControlFlow::Continue(())
        }
    }
    let _ = walk(&mut expr.clone(), &mut Seen(see));
}

/// A visitor's hooks, whatever it stops with.
trait Hooks {
    fn pre_query(&mut self, query: &mut Query) -> ControlFlow<()>;
    fn post_query(&mut self, query: &mut Query) -> ControlFlow<()>;
    fn pre_select(&mut self, select: &mut Select) -> ControlFlow<()>;
    fn post_select(&mut self, select: &mut Select) -> ControlFlow<()>;
    fn pre_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<()>;
    fn post_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<()>;
    fn pre_expr(&mut self, expr: &mut Expr) -> ControlFlow<()>;
    fn post_expr(&mut self, expr: &mut Expr) -> ControlFlow<()>;
}

struct Visiting<'a, V: VisitorMut> {
    visitor: &'a mut V,
    stopped: &'a mut Option<V::Break>,
}

impl<V: VisitorMut> Visiting<'_, V> {
    fn keep(&mut self, flow: ControlFlow<V::Break>) -> ControlFlow<()> {
        match flow {
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
            ControlFlow::Break(value) => {
                *self.stopped = Some(value);
                ControlFlow::Break(())
            }
        }
    }
}

impl<V: VisitorMut> Hooks for Visiting<'_, V> {
    fn pre_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let flow = self.visitor.pre_visit_query(query);
        self.keep(flow)
    }

    fn post_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let flow = self.visitor.post_visit_query(query);
        self.keep(flow)
    }

    fn pre_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let flow = self.visitor.pre_visit_select(select);
        self.keep(flow)
    }

    fn post_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let flow = self.visitor.post_visit_select(select);
        self.keep(flow)
    }

    fn pre_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<()> {
        let flow = self.visitor.pre_visit_table_factor(relation);
        self.keep(flow)
    }

    fn post_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<()> {
        let flow = self.visitor.post_visit_table_factor(relation);
        self.keep(flow)
    }

    fn pre_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let flow = self.visitor.pre_visit_expr(expr);
        self.keep(flow)
    }

    fn post_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let flow = self.visitor.post_visit_expr(expr);
        self.keep(flow)
    }
}

/// The one visitor that sqlparser's tree is compiled for.
struct Adapter<'a>(&'a mut dyn Hooks);

impl VisitorMut for Adapter<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.0.pre_query(query)
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.0.post_query(query)
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.0.pre_select(select)
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.0.post_select(select)
    }

    fn pre_visit_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<()> {
        self.0.pre_table_factor(relation)
    }

    fn post_visit_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<()> {
        self.0.post_table_factor(relation)
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.0.pre_expr(expr)
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.0.post_expr(expr)
    }
}
