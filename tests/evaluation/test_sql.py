"""The SQL metric against pairs of queries whose meaning is known: every verdict has to be the true one."""

import math
import subprocess
import sys
import time

import pytest

import evaluation.sql
from evaluation.sql import normal_form, parse, score_row, sql_rows
from evaluation.sql_execution import describe, open_schema

PEOPLE = "CREATE TABLE people (id INTEGER, name VARCHAR, age INTEGER, city VARCHAR)"
KEYED = "CREATE TABLE people (id INTEGER PRIMARY KEY, name VARCHAR NOT NULL, age INTEGER, city VARCHAR)"
SHOP = (
    "CREATE TABLE customers (customer_id VARCHAR, name VARCHAR, city VARCHAR);"
    " CREATE TABLE orders (order_id VARCHAR, customer_id VARCHAR, amount INTEGER, status VARCHAR)"
)
OWNED = (
    "CREATE TABLE owners (owner_id INTEGER PRIMARY KEY, name VARCHAR NOT NULL);"
    " CREATE TABLE dogs (dog_id INTEGER PRIMARY KEY, owner_id INTEGER NOT NULL REFERENCES owners (owner_id), weight REAL)"
)
CHAIN = (
    "CREATE TABLE student (stuid VARCHAR, lname VARCHAR); CREATE TABLE club (clubid VARCHAR, clubname VARCHAR);"
    " CREATE TABLE member_of_club (clubid VARCHAR, stuid VARCHAR)"
)
WIKI = 'CREATE TABLE table_name_24 ("home team" VARCHAR, score VARCHAR, week INTEGER, "Date" VARCHAR)'

# schema, reference, prediction, whether both answer alike on every database that the schema allows.
PAIRS = {
    # Spelling
    "identical": (PEOPLE, "SELECT name FROM people", "SELECT name FROM people", True),
    "keyword case": (PEOPLE, "SELECT name FROM people WHERE age > 30", "select name from people where age > 30", True),
    "name case": (PEOPLE, "SELECT name FROM people", "SELECT NAME FROM People", True),
    "white space": (PEOPLE, "SELECT name FROM people", "SELECT  name\n\tFROM people ;", True),
    "two semicolons": (PEOPLE, "SELECT name FROM people", "SELECT name FROM people;;", True),
    "comment": (PEOPLE, "SELECT name FROM people", "SELECT name /* who */ FROM people -- all", True),
    "quoted name": (PEOPLE, "SELECT name FROM people", 'SELECT "name" FROM [people]', True),
    "quoted text": (PEOPLE, "SELECT age FROM people WHERE name = 'Ann'", 'SELECT age FROM people WHERE name = "Ann"', True),
    "quote within": (PEOPLE, "SELECT age FROM people WHERE name = \"O'Hara\"", "SELECT age FROM people WHERE name = 'O''Hara'", True),
    "double quotes around a column": (PEOPLE, "SELECT age FROM people WHERE name = city", 'SELECT age FROM people WHERE name = "city"', True),
    "single quotes around a column": (PEOPLE, "SELECT age FROM people WHERE name = city", "SELECT age FROM people WHERE name = 'city'", False),
    "spaced name": (WIKI, 'SELECT score FROM table_name_24 WHERE "home team" = "Leeds"', "SELECT score FROM table_name_24 WHERE `Home Team` = 'Leeds'", True),
    "literal case": (PEOPLE, "SELECT age FROM people WHERE name = 'Ann'", "SELECT age FROM people WHERE name = 'ann'", False),
    "literal space": (PEOPLE, "SELECT age FROM people WHERE name = 'Ann'", "SELECT age FROM people WHERE name = 'Ann '", False),
    "not equal sign": (PEOPLE, "SELECT name FROM people WHERE age <> 3", "SELECT name FROM people WHERE age != 3", True),
    "1 and 1.0": (PEOPLE, "SELECT name FROM people WHERE age = 1", "SELECT name FROM people WHERE age = 1.0", True),
    "number as text": (PEOPLE, "SELECT name FROM people WHERE age = 40", "SELECT name FROM people WHERE age = '40'", True),
    # Aliases
    "table alias": (PEOPLE, "SELECT T1.name FROM people AS T1", "SELECT name FROM people", True),
    "other alias": (PEOPLE, "SELECT T1.name FROM people AS T1 WHERE T1.age = 3", "SELECT p.name FROM people p WHERE p.age = 3", True),
    "result alias": (PEOPLE, "SELECT COUNT(*) AS n FROM people", "SELECT COUNT(*) FROM people", True),
    "ordered by an alias": (PEOPLE, "SELECT city, COUNT(*) AS n FROM people GROUP BY city ORDER BY n DESC, city", "SELECT city, COUNT(*) FROM people GROUP BY city ORDER BY COUNT(*) DESC, city", True),
    "swapped aliases": (SHOP, "SELECT T1.name FROM customers AS T1 JOIN orders AS T2 ON T1.customer_id = T2.customer_id", "SELECT T2.name FROM customers AS T2 JOIN orders AS T1 ON T2.customer_id = T1.customer_id", True),
    "alias that hides a column": (PEOPLE, "SELECT name, -age AS age FROM people ORDER BY -age, name", "SELECT name, -age AS age FROM people ORDER BY age, name", True),
    # Joins
    "reordered join": (SHOP, "SELECT T1.name, T2.amount FROM customers AS T1 JOIN orders AS T2 ON T1.customer_id = T2.customer_id", "SELECT T1.name, T2.amount FROM orders AS T2 JOIN customers AS T1 ON T2.customer_id = T1.customer_id", True),
    "comma join": (SHOP, "SELECT T1.name FROM customers AS T1 JOIN orders AS T2 ON T1.customer_id = T2.customer_id", "SELECT T1.name FROM customers AS T1, orders AS T2 WHERE T1.customer_id = T2.customer_id", True),
    "inner": (SHOP, "SELECT name FROM customers JOIN orders ON customers.customer_id = orders.customer_id", "SELECT name FROM customers INNER JOIN orders ON customers.customer_id = orders.customer_id", True),
    "three tables reordered": (CHAIN, "SELECT T1.clubname FROM club AS T1 JOIN member_of_club AS T2 ON T1.clubid = T2.clubid JOIN student AS T3 ON T2.stuid = T3.stuid WHERE T3.lname = 'Smith'", "SELECT c.clubname FROM student AS s JOIN member_of_club AS m ON m.stuid = s.stuid JOIN club AS c ON c.clubid = m.clubid WHERE s.lname = 'Smith'", True),
    "left join": (SHOP, "SELECT T1.name FROM customers AS T1 JOIN orders AS T2 ON T1.customer_id = T2.customer_id", "SELECT T1.name FROM customers AS T1 LEFT JOIN orders AS T2 ON T1.customer_id = T2.customer_id", False),
    "left join made inner": (SHOP, "SELECT T1.name FROM customers AS T1 JOIN orders AS T2 ON T1.customer_id = T2.customer_id WHERE T2.amount > 5", "SELECT T1.name FROM customers AS T1 LEFT JOIN orders AS T2 ON T1.customer_id = T2.customer_id WHERE T2.amount > 5", True),
    "join against IN": (SHOP, "SELECT T1.name FROM customers AS T1 JOIN orders AS T2 ON T1.customer_id = T2.customer_id", "SELECT name FROM customers WHERE customer_id IN (SELECT customer_id FROM orders)", False),
    "distinct join against IN": (SHOP, "SELECT DISTINCT T1.name FROM customers AS T1 JOIN orders AS T2 ON T1.customer_id = T2.customer_id", "SELECT DISTINCT name FROM customers WHERE customer_id IN (SELECT customer_id FROM orders)", True),
    "wrong join key": (SHOP, "SELECT T1.name FROM customers AS T1 JOIN orders AS T2 ON T1.customer_id = T2.customer_id", "SELECT T1.name FROM customers AS T1 JOIN orders AS T2 ON T1.customer_id = T2.order_id", False),
    "column of the other table": (SHOP, "SELECT name FROM customers WHERE city = 'Rome'", "SELECT status FROM orders WHERE status = 'Rome'", False),
    "declared reference makes a join idle": (OWNED, "SELECT COUNT(*) FROM dogs", "SELECT COUNT(*) FROM dogs JOIN owners ON dogs.owner_id = owners.owner_id", True),
    "undeclared reference does not": (SHOP, "SELECT COUNT(*) FROM orders", "SELECT COUNT(*) FROM orders JOIN customers ON orders.customer_id = customers.customer_id", False),
    # Borders and literals
    "< and <=": (PEOPLE, "SELECT name FROM people WHERE age < 30", "SELECT name FROM people WHERE age <= 30", False),
    "> and >=": (SHOP, "SELECT COUNT(*) FROM orders WHERE amount > 100", "SELECT COUNT(*) FROM orders WHERE amount >= 100", False),
    "< n and <= n - 1": (PEOPLE, "SELECT name FROM people WHERE id < 30 AND id = CAST(id AS INTEGER)", "SELECT name FROM people WHERE id <= 29 AND id = CAST(id AS INTEGER)", True),
    "mirrored": (PEOPLE, "SELECT name FROM people WHERE age < 30", "SELECT name FROM people WHERE 30 > age", True),
    "between": (PEOPLE, "SELECT name FROM people WHERE age BETWEEN 20 AND 30", "SELECT name FROM people WHERE age >= 20 AND age <= 30", True),
    "between without its end": (PEOPLE, "SELECT name FROM people WHERE age BETWEEN 20 AND 30", "SELECT name FROM people WHERE age >= 20 AND age < 30", False),
    "next number": (PEOPLE, "SELECT name FROM people WHERE age = 30", "SELECT name FROM people WHERE age = 31", False),
    "average at the border": (PEOPLE, "SELECT name FROM people WHERE age > (SELECT AVG(age) FROM people)", "SELECT name FROM people WHERE age >= (SELECT AVG(age) FROM people)", False),
    "like": (PEOPLE, "SELECT name FROM people WHERE name LIKE '%an%'", "SELECT name FROM people WHERE name LIKE 'an%'", False),
    "like has no case": (PEOPLE, "SELECT name FROM people WHERE name LIKE '%an%'", "SELECT name FROM people WHERE name LIKE '%AN%'", True),
    "equal has": (PEOPLE, "SELECT name FROM people WHERE name LIKE 'ann'", "SELECT name FROM people WHERE name = 'ann'", False),
    "in": (PEOPLE, "SELECT name FROM people WHERE city IN ('Rome', 'Oslo')", "SELECT name FROM people WHERE city = 'Oslo' OR city = 'Rome'", True),
    "and for or": (PEOPLE, "SELECT name FROM people WHERE city = 'Rome' OR age = 3", "SELECT name FROM people WHERE city = 'Rome' AND age = 3", False),
    "conditions swapped": (PEOPLE, "SELECT name FROM people WHERE city = 'Rome' AND age > 3", "SELECT name FROM people WHERE age > 3 AND city = 'Rome'", True),
    "precedence": (PEOPLE, "SELECT name FROM people WHERE (city = 'Rome' OR city = 'Oslo') AND age > 3", "SELECT name FROM people WHERE city = 'Rome' OR city = 'Oslo' AND age > 3", False),
    "idle parentheses": (PEOPLE, "SELECT name FROM people WHERE (age > 3)", "SELECT name FROM people WHERE age > 3", True),
    # NULL
    "count of a column": (PEOPLE, "SELECT COUNT(*) FROM people", "SELECT COUNT(city) FROM people", False),
    "count of a column without NULL": (KEYED, "SELECT COUNT(*) FROM people", "SELECT COUNT(name) FROM people", True),
    "not equal leaves NULL out": (PEOPLE, "SELECT name FROM people WHERE city <> 'Rome'", "SELECT name FROM people WHERE city IS NOT 'Rome'", False),
    "not and NULL": (PEOPLE, "SELECT name FROM people WHERE city <> 'Rome'", "SELECT name FROM people WHERE NOT city = 'Rome'", True),
    "= NULL": (PEOPLE, "SELECT name FROM people WHERE city IS NULL", "SELECT name FROM people WHERE city = NULL", False),
    "is null spelled otherwise": (PEOPLE, "SELECT name FROM people WHERE city IS NOT NULL", "SELECT name FROM people WHERE city NOTNULL", True),
    "not in and NULL": (SHOP, "SELECT name FROM customers WHERE customer_id NOT IN (SELECT customer_id FROM orders)", "SELECT name FROM customers AS c WHERE NOT EXISTS (SELECT 1 FROM orders AS o WHERE o.customer_id = c.customer_id)", False),
    "average and NULL": (PEOPLE, "SELECT AVG(age) FROM people", "SELECT SUM(age) * 1.0 / COUNT(*) FROM people", False),
    "average spelled out": (PEOPLE, "SELECT AVG(age) FROM people", "SELECT SUM(age) * 1.0 / COUNT(age) FROM people", True),
    "least and NULL": (PEOPLE, "SELECT MIN(age) FROM people", "SELECT age FROM people ORDER BY age LIMIT 1", False),
    # Order
    "order dropped": (PEOPLE, "SELECT name FROM people ORDER BY age", "SELECT name FROM people", False),
    "order added": (PEOPLE, "SELECT name FROM people", "SELECT name FROM people ORDER BY age", True),
    "order turned round": (PEOPLE, "SELECT name FROM people ORDER BY age", "SELECT name FROM people ORDER BY age DESC", False),
    "ascending is the default": (PEOPLE, "SELECT name FROM people ORDER BY age", "SELECT name FROM people ORDER BY age ASC", True),
    "order by place": (PEOPLE, "SELECT name, age FROM people ORDER BY age", "SELECT name, age FROM people ORDER BY 2", True),
    "finer order": (PEOPLE, "SELECT name FROM people ORDER BY age", "SELECT name FROM people ORDER BY age, name", True),
    "coarser order": (PEOPLE, "SELECT name FROM people ORDER BY age, name", "SELECT name FROM people ORDER BY age", False),
    "keys swapped": (PEOPLE, "SELECT name, age FROM people ORDER BY age, name", "SELECT name, age FROM people ORDER BY name, age", False),
    "order of groups is no order": (PEOPLE, "SELECT city, COUNT(*) FROM people GROUP BY city ORDER BY city", "SELECT city, COUNT(*) FROM people GROUP BY city", False),
    "order of a union is no order": (SHOP, "SELECT city FROM customers UNION SELECT status FROM orders ORDER BY city", "SELECT city FROM customers UNION SELECT status FROM orders", False),
    "order of one row": (PEOPLE, "SELECT COUNT(*) FROM people ORDER BY 1", "SELECT COUNT(*) FROM people", True),
    "order inside only": (PEOPLE, "SELECT name FROM people WHERE age IN (SELECT age FROM people ORDER BY age)", "SELECT name FROM people WHERE age IN (SELECT age FROM people)", True),
    "NULLs last": (PEOPLE, "SELECT name FROM people ORDER BY age", "SELECT name FROM people ORDER BY age IS NULL, age", False),
    # Duplicates
    "distinct dropped": (PEOPLE, "SELECT DISTINCT city FROM people", "SELECT city FROM people", False),
    "distinct and group": (PEOPLE, "SELECT DISTINCT city FROM people", "SELECT city FROM people GROUP BY city", True),
    "distinct of a key": (KEYED, "SELECT DISTINCT id FROM people", "SELECT id FROM people", True),
    "distinct in a count": (PEOPLE, "SELECT COUNT(DISTINCT city) FROM people", "SELECT COUNT(city) FROM people", False),
    "distinct in IN": (SHOP, "SELECT name FROM customers WHERE customer_id IN (SELECT DISTINCT customer_id FROM orders)", "SELECT name FROM customers WHERE customer_id IN (SELECT customer_id FROM orders)", True),
    "union all": (SHOP, "SELECT city FROM customers UNION SELECT status FROM orders", "SELECT city FROM customers UNION ALL SELECT status FROM orders", False),
    "union turned round": (SHOP, "SELECT city FROM customers UNION SELECT status FROM orders", "SELECT status FROM orders UNION SELECT city FROM customers", True),
    "intersect and IN": (SHOP, "SELECT customer_id FROM customers INTERSECT SELECT customer_id FROM orders", "SELECT customer_id FROM customers WHERE customer_id IN (SELECT customer_id FROM orders)", False),
    "except turned round": (SHOP, "SELECT customer_id FROM customers EXCEPT SELECT customer_id FROM orders", "SELECT customer_id FROM orders EXCEPT SELECT customer_id FROM customers", False),
    # LIMIT
    "limit and maximum": (PEOPLE, "SELECT name FROM people ORDER BY age DESC LIMIT 1", "SELECT name FROM people WHERE age = (SELECT MAX(age) FROM people)", False),
    "limit 1 and 2": (PEOPLE, "SELECT name FROM people ORDER BY age DESC LIMIT 1", "SELECT name FROM people ORDER BY age DESC LIMIT 2", False),
    "limit dropped": (PEOPLE, "SELECT name FROM people ORDER BY age DESC LIMIT 3", "SELECT name FROM people ORDER BY age DESC", False),
    "limit from the other end": (PEOPLE, "SELECT name FROM people ORDER BY age DESC LIMIT 1", "SELECT name FROM people ORDER BY age LIMIT 1", False),
    "tie broken": (PEOPLE, "SELECT name FROM people ORDER BY age DESC LIMIT 1", "SELECT name FROM people ORDER BY age DESC, name LIMIT 1", True),
    "tie left open": (PEOPLE, "SELECT name FROM people ORDER BY age DESC, name LIMIT 1", "SELECT name FROM people ORDER BY age DESC LIMIT 1", False),
    "tie of groups": (PEOPLE, "SELECT city FROM people GROUP BY city ORDER BY COUNT(*) DESC LIMIT 1", "SELECT city FROM people GROUP BY city ORDER BY COUNT(*) DESC, city DESC LIMIT 1", True),
    "offset": (PEOPLE, "SELECT name FROM people ORDER BY id LIMIT 3 OFFSET 1", "SELECT name FROM people ORDER BY id LIMIT 1, 3", True),
    "limit 10 and 9": (PEOPLE, "SELECT id FROM people ORDER BY id LIMIT 10", "SELECT id FROM people ORDER BY id LIMIT 9", False),
    "limit without order": (PEOPLE, "SELECT name FROM people LIMIT 3", "SELECT name FROM people LIMIT 4", False),
    "limit of another column": (PEOPLE, "SELECT name FROM people LIMIT 3", "SELECT city FROM people LIMIT 3", False),
    "limit inside of another column": (PEOPLE, "SELECT name FROM people WHERE age > (SELECT age FROM people LIMIT 1)", "SELECT city FROM people WHERE age > (SELECT age FROM people LIMIT 1)", False),
    "limit inside": (PEOPLE, "SELECT name FROM people WHERE age > (SELECT age FROM people LIMIT 1)", "SELECT p.name FROM people AS p WHERE p.age > (SELECT q.age FROM people AS q LIMIT 1)", True),
    "bare column": (PEOPLE, "SELECT name, COUNT(*) FROM people GROUP BY city", "SELECT age, COUNT(*) FROM people GROUP BY city", False),
    # Groups and aggregates
    "maximum and minimum": (PEOPLE, "SELECT MAX(age) FROM people", "SELECT MIN(age) FROM people", False),
    "sum and average": (PEOPLE, "SELECT SUM(age) FROM people WHERE city = 'Rome'", "SELECT AVG(age) FROM people WHERE city = 'Rome'", False),
    "having border": (PEOPLE, "SELECT city FROM people GROUP BY city HAVING COUNT(*) > 3", "SELECT city FROM people GROUP BY city HAVING COUNT(*) >= 3", False),
    "having next number": (PEOPLE, "SELECT city FROM people GROUP BY city HAVING COUNT(*) > 3", "SELECT city FROM people GROUP BY city HAVING COUNT(*) >= 4", True),
    "having dropped": (PEOPLE, "SELECT city FROM people GROUP BY city HAVING AVG(age) > 40", "SELECT city FROM people GROUP BY city", False),
    "where dropped": (PEOPLE, "SELECT AVG(age) FROM people WHERE city = 'Rome'", "SELECT AVG(age) FROM people", False),
    "group by the other side": (SHOP, "SELECT T1.customer_id, COUNT(*) FROM customers AS T1 JOIN orders AS T2 ON T1.customer_id = T2.customer_id GROUP BY T1.customer_id", "SELECT T2.customer_id, COUNT(*) FROM customers AS T1 JOIN orders AS T2 ON T1.customer_id = T2.customer_id GROUP BY T2.customer_id", True),
    "group by the name": (OWNED, "SELECT T1.name, COUNT(*) FROM owners AS T1 JOIN dogs AS T2 ON T1.owner_id = T2.owner_id GROUP BY T1.owner_id", "SELECT T1.name, COUNT(*) FROM owners AS T1 JOIN dogs AS T2 ON T1.owner_id = T2.owner_id GROUP BY T1.name", False),
    "group by both": (OWNED, "SELECT T1.name, COUNT(*) FROM owners AS T1 JOIN dogs AS T2 ON T1.owner_id = T2.owner_id GROUP BY T1.owner_id", "SELECT T1.name, COUNT(*) FROM owners AS T1 JOIN dogs AS T2 ON T1.owner_id = T2.owner_id GROUP BY T1.owner_id, T1.name", True),
    # The result
    "columns swapped": (PEOPLE, "SELECT name, age FROM people", "SELECT age, name FROM people", False),
    "column added": (PEOPLE, "SELECT name FROM people", "SELECT name, age FROM people", False),
    "star": (PEOPLE, "SELECT * FROM people", "SELECT id, name, age, city FROM people", True),
    "text is no number": (PEOPLE, "SELECT city FROM people", "SELECT CAST(city AS INTEGER) FROM people", False),
    "whole floats": (PEOPLE, "SELECT age FROM people", "SELECT age * 1.0 FROM people", True),
    "with": (PEOPLE, "SELECT name FROM people WHERE age > (SELECT AVG(age) FROM people)", "WITH m AS (SELECT AVG(age) AS a FROM people) SELECT name FROM people, m WHERE age > a", True),
    "no such column": (PEOPLE, "SELECT name FROM people", "SELECT title FROM people", False),
    "no such table": (PEOPLE, "SELECT name FROM people", "SELECT name FROM persons", False),
    "other words": (PEOPLE, "SELECT name FROM people", "the names of all people", False),
    "nothing": (PEOPLE, "SELECT name FROM people", "", False),
}  # fmt: skip
