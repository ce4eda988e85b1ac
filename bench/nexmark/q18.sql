-- The last bid of each person on each auction. Bids of one millisecond are told apart by what they carry.
SELECT auction, bidder, price, channel, url, date_time, extra
FROM (
  SELECT
    auction, bidder, price, channel, url, date_time, extra,
    ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, extra) AS rn
  FROM bid
) AS q
WHERE rn <= 1
