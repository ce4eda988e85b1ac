-- Do payments go through?
--
-- Grain:       hour and method.
-- Event time:  payments.ts, tumbling windows of 1 hour.
-- Lateness:    the table's (5 seconds).
-- Size:        24 rows a day and method.
CREATE MATERIALIZED VIEW payments_per_hour AS
SELECT window_start, method,
       COUNT(*) AS attempts,
       COUNT(*) FILTER (WHERE outcome = 'failed') AS failed,
       SUM(amount) FILTER (WHERE outcome = 'captured') AS captured_amount
FROM TUMBLE(payments, ts, INTERVAL '1 hour')
GROUP BY window_start, window_end, method;
