//! A table's definition as a statement that gives it again: what SHOW CREATE tells of a table that was altered.

use super::{OnConflict, TableDef, TableOptions};
use crate::duration::display_us;
use crate::parser::rename::quoted as quoted_name;

impl TableDef {
    /// The statement that creates this table.
    pub fn to_sql(&self) -> String {
        let kind = if self.is_source() { "SOURCE" } else { "TABLE" };
        let mut elements: Vec<String> = self.columns.iter().map(column).collect();
        let name = |column: &usize| quoted_name(&self.columns[*column].name);
        if !self.primary_key.is_empty() {
            let key = self.primary_key.iter().map(name).collect::<Vec<_>>();
            elements.push(format!("PRIMARY KEY ({})", key.join(", ")));
        }
        for check in &self.checks {
            elements.push(format!("CONSTRAINT {} CHECK ({})", quoted_name(&check.name), check.condition));
        }
        if let Some(watermark) = &self.watermark {
            let column = name(&watermark.column);
            let delay = match watermark.delay_us {
                0 => String::new(),
                us => format!(" - INTERVAL '{}'", display_us(us)),
            };
            elements.push(format!("WATERMARK FOR {column} AS {column}{delay}"));
        }
        let mut sql =
            format!("CREATE {kind} {} (\n    {}\n)", quoted_name(&self.name), elements.join(",\n    "));
        if self.append_only && !self.is_source() {
            sql.push_str(" APPEND ONLY");
        }
        if !self.primary_key.is_empty() {
            match (self.on_conflict, self.append_only) {
                (OnConflict::DoNothing, false) => sql.push_str(" ON CONFLICT DO NOTHING"),
                (OnConflict::DoUpdateIfNotNull, _) => sql.push_str(" ON CONFLICT DO UPDATE IF NOT NULL"),
                _ => {}
            }
        }
        let options = self.with_options();
        if !options.is_empty() {
            let options =
                options.iter().map(|(key, value)| format!("{key} = '{}'", value.replace('\'', "''")));
            sql.push_str(&format!(" WITH ({})", options.collect::<Vec<_>>().join(", ")));
        }
        if let Some((format, encode)) = self.connector.as_ref().and_then(|c| c.format.as_ref()) {
            sql.push_str(&format!(" FORMAT {format} ENCODE {encode}"));
        }
        sql
    }

    fn with_options(&self) -> Vec<(String, String)> {
        let usual = TableOptions::default();
        let mut options = Vec::new();
        if let Some(connector) = &self.connector {
            options.push(("connector".to_string(), connector.name.clone()));
            options.extend(connector.options.clone());
        }
        let mut say = |key: &str, value: String| options.push((key.to_string(), value));
        if let Some(column) = self.options.dedup_key {
            say("dedup_key", self.columns[column].name.clone());
        }
        if self.options.dedup_window_us != usual.dedup_window_us {
            say("dedup_window", display_us(self.options.dedup_window_us));
        }
        match self.options.idle_timeout_us {
            None => say("idle_timeout", "off".to_string()),
            Some(us) if usual.idle_timeout_us != Some(us) => say("idle_timeout", display_us(us)),
            _ => {}
        }
        if self.options.max_ahead_us != usual.max_ahead_us {
            say("max_ahead", display_us(self.options.max_ahead_us));
        }
        options
    }
}

fn column(column: &super::Column) -> String {
    let mut text = format!("{} {}", quoted_name(&column.name), column.sql_type);
    if column.not_null {
        text.push_str(" NOT NULL");
    }
    if let Some(default) = &column.default {
        text.push_str(&format!(" DEFAULT ({default})"));
    }
    if let Some(generated) = &column.generated {
        text.push_str(&format!(" GENERATED ALWAYS AS ({generated})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::Statement;
    use crate::catalog::TableDef;

    fn table(sql: &str) -> TableDef {
        match crate::parse(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}")).remove(0).statement {
            Statement::CreateTable { table, .. } => table,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_text_of_a_table_gives_the_table() {
        for sql in [
            "CREATE TABLE t (a INT)",
            "CREATE TABLE \"Two Words\" (\"order\" BIGINT PRIMARY KEY, b NUMERIC(10,2) NOT NULL DEFAULT 1.5 + 2, \
             c TEXT DEFAULT 'it''s', CHECK (b > 0), CONSTRAINT named CHECK (c <> 'x' OR b < 3))",
            "CREATE TABLE t (a BIGINT, b VARCHAR(20)[], ts TIMESTAMPTZ DEFAULT now(), g BIGINT GENERATED ALWAYS AS (a * 2), \
             WATERMARK FOR ts AS ts - INTERVAL '90 seconds') APPEND ONLY \
             WITH (dedup_key = 'a', dedup_window = '1 hour', idle_timeout = 'off', max_ahead = '1 day')",
            "CREATE TABLE t (a INT, b INT, PRIMARY KEY (b, a)) ON CONFLICT DO UPDATE IF NOT NULL",
            "CREATE TABLE t (a INT PRIMARY KEY) APPEND ONLY",
            "CREATE TABLE t (a INT PRIMARY KEY, j JSONB, u UUID) ON CONFLICT DO NOTHING WITH (idle_timeout = '5 seconds')",
            "CREATE SOURCE s (a INT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (connector = 'nexmark', x = 'y''z') FORMAT PLAIN ENCODE JSON",
        ] {
            let written = table(sql);
            let text = written.to_sql();
            let read = table(&text);
            assert_eq!(
                TableDef { sql: String::new(), ..read },
                TableDef { sql: String::new(), ..written },
                "{text}"
            );
        }
    }
}
