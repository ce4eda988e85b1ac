-- Highest bid: the bids with the highest price of each ten seconds.
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM bid AS b
JOIN (
  SELECT MAX(price) AS maxprice, window_end
  FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
  GROUP BY window_start, window_end
) AS m ON b.price = m.maxprice
WHERE b.date_time BETWEEN m.window_end - INTERVAL '10 seconds' AND m.window_end
