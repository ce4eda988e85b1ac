-- The ten highest bids of each auction.
SELECT auction, bidder, price, channel, url, date_time, extra, rn
FROM (
  SELECT
    auction, bidder, price, channel, url, date_time, extra,
    ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC, extra) AS rn
  FROM bid
) AS q
WHERE rn <= 10
