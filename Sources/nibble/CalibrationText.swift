/// What `nibble calibrate` runs without --text: prose, code, lists and arithmetic, so that the ranges of a model's habits are met.
enum CalibrationText {
  static let sample = """
    The cache keeps one key and one value for every token that the model has read. When the next token is computed, its query is
    compared with every key; the scores become weights, and the weighted sum of the values is what the token learns from its past.

    Rosa has 57 ribbons. Quinn has twice as many as Rosa and hands all of those to Rosa. Rosa shares them equally among 3 people and
    keeps one share. 6 of them are sold. How many ribbons does Rosa have now? 57 * 2 = 114. 57 + 114 = 171. 171 / 3 = 57. 57 - 6 = 51.

    SELECT name, count(*) AS total FROM orders WHERE created_at >= '2024-01-01' GROUP BY name HAVING total > 10 ORDER BY total DESC;
    If the statement contains more than one table, the optimizer considers the order in which the tables are joined. An index on the
    column of the WHERE clause lets the database find the rows without reading the whole table.

    def scaled_dot_product(query, keys, values):
        scores = [sum(q * k for q, k in zip(query, key)) / len(query) ** 0.5 for key in keys]
        largest = max(scores)
        weights = [math.exp(score - largest) for score in scores]
        total = sum(weights)
        return [sum(w * v[i] for w, v in zip(weights, values)) / total for i in range(len(values[0]))]

    Warning: a function that returns a reference to a local variable leaves the caller with a dangling reference. The compiler reports
    this error in most cases, but not when the reference passes through a pointer. Code 48213: alpha. Code 90177: beta. Code 33120: gamma.

    Die Straße führt am Fluss entlang; im Winter liegt dort Schnee. Le fleuve traverse la ville avant d'atteindre la mer. El puente fue
    construido en 1893. 東京は日本の首都です。 Москва стоит на семи холмах. 3.14159, 2.71828, 1.41421, 1e-9, 0xFF, 1,048,576.

    Q: What happens to a page when its last reader is gone? A: It stays in the prefix tree until the pool needs room; then the leaf that
    was used least recently goes first. Q: And if somebody asks for the same prompt again? A: Its pages are found and shared; nothing is
    computed twice, and the answer is the same, bit for bit.
    """
}
