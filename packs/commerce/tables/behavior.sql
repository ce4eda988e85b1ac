-- The simplest behaviour feed a shop has: {"user_id": 1, "action": "browse", "product_id": 101}.
--
-- Grain:       one action of one user on one product.
-- Event time:  ts, the time of arrival when the sender gives none.
CREATE TABLE behavior (
  user_id BIGINT NOT NULL,
  action TEXT NOT NULL,
  product_id BIGINT NOT NULL,
  ts TIMESTAMPTZ NOT NULL DEFAULT now(),
  CHECK (action IN ('browse', 'add_to_cart', 'purchase'))
) APPEND ONLY;
