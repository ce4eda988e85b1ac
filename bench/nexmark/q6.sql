-- Average selling price by seller: over the last ten auctions that were won, each time one more is.
-- Flink can't run it: its OVER windows take no updates.
SELECT
  seller,
  id,
  AVG(price) OVER (
    PARTITION BY seller ORDER BY date_time, id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW
  ) AS avg_price
FROM (
  SELECT
    a.id, a.seller, b.price, b.date_time,
    ROW_NUMBER() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.extra) AS rn
  FROM auction AS a
  JOIN bid AS b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
) AS q
WHERE rn <= 1
