-- What the shop sells. The latest row of an item counts.
--
-- Grain:       one row per item.
CREATE TABLE items (
  item_id BIGINT PRIMARY KEY,
  category_id BIGINT NOT NULL,
  name TEXT NOT NULL,
  price DECIMAL(18,2) NOT NULL,
  CHECK (price >= 0)
) ON CONFLICT OVERWRITE;
