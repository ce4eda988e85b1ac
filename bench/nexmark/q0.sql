-- Pass through: what the machinery itself costs.
SELECT auction, bidder, price, date_time, extra
FROM bid
