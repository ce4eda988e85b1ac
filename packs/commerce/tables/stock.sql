-- What is on the shelf: {"product_id": 103, "quantity": 0}. The latest row of a product counts.
--
-- Grain:       one row per product.
CREATE TABLE stock (
  product_id BIGINT PRIMARY KEY,
  quantity BIGINT NOT NULL,
  reorder_point BIGINT NOT NULL DEFAULT 10,
  updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
) ON CONFLICT OVERWRITE;
