-- What should be on the shelf by the ledger of movements? Compare with the stock table.
--
-- Grain:       product.
-- Event time:  none; every movement counts.
-- Size:        one row per product.
CREATE MATERIALIZED VIEW stock_on_hand AS
SELECT product_id,
       SUM(delta) AS on_hand,
       SUM(-delta) FILTER (WHERE reason = 'sale') AS sold,
       COUNT(*) AS moves
FROM stock_moves
GROUP BY product_id;
