-- Which items sell, and for how much?
--
-- Grain:       item, by its name today.
-- Event time:  none; follows order_lines and items, a renamed item is renamed here too.
-- Money:       revenue is the sum of the lines as they were priced.
-- Size:        one row per item sold.
CREATE MATERIALIZED VIEW item_sales AS
SELECT items.item_id, items.name, items.category_id,
       COUNT(*) AS lines,
       SUM(order_lines.quantity) AS units,
       SUM(order_lines.amount) AS revenue
FROM order_lines
INNER JOIN items ON order_lines.item_id = items.item_id
GROUP BY items.item_id, items.name, items.category_id;
