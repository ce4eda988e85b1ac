-- Sales per day as a shop's bookkeeping gives them: {"date": "2021-09-01", "sales": 1000}.
-- The latest row of a day counts.
--
-- Grain:       one row per day.
CREATE TABLE daily_sales (
  date DATE PRIMARY KEY,
  sales DECIMAL(18,2) NOT NULL
) ON CONFLICT OVERWRITE;
