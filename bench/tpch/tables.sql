-- The eight tables of TPC-H. Rows may be inserted, updated and deleted.

CREATE TABLE region (
  r_regionkey BIGINT PRIMARY KEY,
  r_name TEXT NOT NULL,
  r_comment TEXT
);

CREATE TABLE nation (
  n_nationkey BIGINT PRIMARY KEY,
  n_name TEXT NOT NULL,
  n_regionkey BIGINT NOT NULL,
  n_comment TEXT
);

CREATE TABLE supplier (
  s_suppkey BIGINT PRIMARY KEY,
  s_name TEXT NOT NULL,
  s_address TEXT NOT NULL,
  s_nationkey BIGINT NOT NULL,
  s_phone TEXT NOT NULL,
  s_acctbal DECIMAL(15,2) NOT NULL,
  s_comment TEXT NOT NULL
);

CREATE TABLE part (
  p_partkey BIGINT PRIMARY KEY,
  p_name TEXT NOT NULL,
  p_mfgr TEXT NOT NULL,
  p_brand TEXT NOT NULL,
  p_type TEXT NOT NULL,
  p_size INT NOT NULL,
  p_container TEXT NOT NULL,
  p_retailprice DECIMAL(15,2) NOT NULL,
  p_comment TEXT NOT NULL
);

CREATE TABLE partsupp (
  ps_partkey BIGINT,
  ps_suppkey BIGINT,
  ps_availqty INT NOT NULL,
  ps_supplycost DECIMAL(15,2) NOT NULL,
  ps_comment TEXT NOT NULL,
  PRIMARY KEY (ps_partkey, ps_suppkey)
);

CREATE TABLE customer (
  c_custkey BIGINT PRIMARY KEY,
  c_name TEXT NOT NULL,
  c_address TEXT NOT NULL,
  c_nationkey BIGINT NOT NULL,
  c_phone TEXT NOT NULL,
  c_acctbal DECIMAL(15,2) NOT NULL,
  c_mktsegment TEXT NOT NULL,
  c_comment TEXT NOT NULL
);

CREATE TABLE orders (
  o_orderkey BIGINT PRIMARY KEY,
  o_custkey BIGINT NOT NULL,
  o_orderstatus TEXT NOT NULL,
  o_totalprice DECIMAL(15,2) NOT NULL,
  o_orderdate DATE NOT NULL,
  o_orderpriority TEXT NOT NULL,
  o_clerk TEXT NOT NULL,
  o_shippriority INT NOT NULL,
  o_comment TEXT NOT NULL
);

CREATE TABLE lineitem (
  l_orderkey BIGINT,
  l_partkey BIGINT NOT NULL,
  l_suppkey BIGINT NOT NULL,
  l_linenumber INT,
  l_quantity DECIMAL(15,2) NOT NULL,
  l_extendedprice DECIMAL(15,2) NOT NULL,
  l_discount DECIMAL(15,2) NOT NULL,
  l_tax DECIMAL(15,2) NOT NULL,
  l_returnflag TEXT NOT NULL,
  l_linestatus TEXT NOT NULL,
  l_shipdate DATE NOT NULL,
  l_commitdate DATE NOT NULL,
  l_receiptdate DATE NOT NULL,
  l_shipinstruct TEXT NOT NULL,
  l_shipmode TEXT NOT NULL,
  l_comment TEXT NOT NULL,
  PRIMARY KEY (l_orderkey, l_linenumber)
);
