-- What has to be ordered again? Products with stock at or under their reorder point.
--
-- Grain:       product.
-- Event time:  none; follows the stock table.
-- Size:        the products that run short.
CREATE MATERIALIZED VIEW low_stock AS
SELECT product_id, quantity AS on_hand, reorder_point
FROM stock
WHERE quantity <= reorder_point;
