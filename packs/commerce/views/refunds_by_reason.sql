-- Why do we give money back?
--
-- Grain:       reason.
-- Event time:  none; every refund counts.
-- Size:        one row per reason.
CREATE MATERIALIZED VIEW refunds_by_reason AS
SELECT reason, COUNT(*) AS refunds, SUM(amount) AS amount
FROM refunds
GROUP BY reason;
