-- Where do orders stand?
--
-- Grain:       status.
-- Event time:  none; follows the orders table.
-- Size:        5 rows.
CREATE MATERIALIZED VIEW orders_by_status AS
SELECT status, COUNT(*) AS orders, SUM(units) AS units, SUM(amount) AS amount
FROM orders
GROUP BY status;
