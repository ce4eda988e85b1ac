//! Lowering of TUMBLE, HOP, CUMULATE and SESSION.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::IsNotNullExpr;
use sql::SqlError;
use sql::session_tvf::SessionTvf;
use sql::window_tvf::{WindowKind, WindowTvf};

use super::lower::{Lowering, column};
use super::{ExpandSpec, Grid, NodeIndex, PlanKind, TimeKind};

impl Lowering<'_> {
    pub(super) fn window_tvf(&mut self, window: &WindowTvf) -> Result<NodeIndex, SqlError> {
        let input = self.lower_expanded(&window.input)?;
        let time_column = window
            .input
            .schema()
            .maybe_index_of_column(&window.time_column)
            .ok_or_else(|| SqlError::internal("the window's time column is in its input"))?;
        let output = output_schema(&self.node(input).schema, time_column);
        let event = matches!(self.node(input).properties.time[time_column], Some(TimeKind::Event));
        let not_null: Arc<dyn PhysicalExpr> =
            Arc::new(IsNotNullExpr::new(column(&self.node(input).schema, time_column)));
        let nullable = self.node(input).schema.field(time_column).is_nullable();
        let input = if nullable { self.map(input, Some(not_null), None, None)? } else { input };

        let several = !matches!(window.kind, WindowKind::Tumble { .. });
        if several && self.may_stay_virtual() {
            return self.virtual_bounds(input, time_column, window.kind, event, output);
        }
        let mut properties = self.node(input).properties.clone();
        let grid = Grid::of(window.kind);
        properties.key = match window.kind {
            WindowKind::Tumble { .. } => properties.key,
            _ => properties.key.map(|mut key| {
                key.push(output.fields().len() - 1);
                key
            }),
        };
        let fixed_size_us = match window.kind {
            WindowKind::Tumble { size_us, .. } | WindowKind::Hop { size_us, .. } => Some(size_us),
            WindowKind::Cumulate { .. } => None,
        };
        properties
            .time
            .push(fixed_size_us.filter(|_| event).map(|size_us| TimeKind::WindowStart { size_us, grid }));
        properties.time.push(event.then_some(TimeKind::WindowEnd { grid }));
        let text = format!("expand {:?} of column {time_column}", window.kind);
        let spec = ExpandSpec { kind: window.kind, time_column };
        Ok(self.add(PlanKind::Expand(Arc::new(spec)), text, vec![input], output, properties))
    }

    pub(super) fn session_tvf(&mut self, session: &SessionTvf) -> Result<NodeIndex, SqlError> {
        let input = self.lower_expanded(&session.input)?;
        let time_column = session.time_index();
        let schema = Arc::clone(&self.node(input).schema);
        let mut fields: Vec<Field> =
            output_schema(&schema, time_column).fields().iter().map(|f| Field::clone(f)).collect();
        let added = fields.len() - 2;
        for (field, name) in fields[added..].iter_mut().zip(&session.bounds) {
            field.set_name(name);
        }
        let not_null: Arc<dyn PhysicalExpr> = Arc::new(IsNotNullExpr::new(column(&schema, time_column)));
        let nullable = schema.field(time_column).is_nullable();
        let input = if nullable { self.map(input, Some(not_null), None, None)? } else { input };
        self.session_bounds(input, session.key_indices(), time_column, session.gap_us, fields)
    }

    /// The input with its time column repeated twice in the place of the bounds.
    fn virtual_bounds(
        &mut self,
        input: NodeIndex,
        time_column: usize,
        window: WindowKind,
        event: bool,
        output: SchemaRef,
    ) -> Result<NodeIndex, SqlError> {
        let node = self.node(input);
        let schema = Arc::clone(&node.schema);
        let mut properties = node.properties.clone();
        properties.key = None;
        properties.time.push(Some(TimeKind::VirtualStart { window, event }));
        properties.time.push(Some(TimeKind::VirtualEnd { window, event }));
        let columns: Vec<Arc<dyn PhysicalExpr>> = (0..schema.fields().len())
            .chain([time_column, time_column])
            .map(|c| column(&schema, c))
            .collect();
        let text = format!("virtual {window:?} of column {time_column}");
        let spec = super::MapSpec { filter: None, projection: Some(columns), output: Arc::clone(&output) };
        Ok(self.add(PlanKind::Map(Arc::new(spec)), text, vec![input], output, properties))
    }
}

fn output_schema(input: &SchemaRef, time_column: usize) -> SchemaRef {
    let time_type: DataType = input.field(time_column).data_type().clone();
    let mut fields: Vec<Field> = input
        .fields()
        .iter()
        .enumerate()
        .map(|(i, f)| {
            let field = Field::clone(f);
            if i == time_column { field.with_nullable(false) } else { field }
        })
        .collect();
    fields.push(Field::new("window_start", time_type.clone(), false));
    fields.push(Field::new("window_end", time_type, false));
    Arc::new(Schema::new(fields))
}
