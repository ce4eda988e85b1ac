-- How do daily sales develop: the average of the last seven days, and the best day so far?
--
-- Grain:       day.
-- Event time:  none; follows the daily_sales table.
-- Money:       moving_average is rounded to the cent.
-- Size:        one row per day. A plain view: computed when it is read.
CREATE VIEW daily_sales_trend AS
SELECT date, sales,
       CAST(AVG(sales) OVER (ORDER BY date RANGE BETWEEN INTERVAL '6 days' PRECEDING AND CURRENT ROW) AS DECIMAL(18,2))
         AS moving_average,
       MAX(sales) OVER (ORDER BY date) AS maximum
FROM daily_sales;
