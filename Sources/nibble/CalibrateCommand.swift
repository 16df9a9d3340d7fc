import ArgumentParser
import Checkpoints
import Engine
import KVQuantization
import ModelFamilies
import TextCodec

struct CalibrateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "calibrate",
    abstract: "Measure the ranges of a model's keys and values and write its KV scales.",
    discussion: """
      Writes kv_scales.json into the model's folder, where --kv-cache-scales auto finds it. The choices are those of nvfp4: the share \
      of block scales that would be subnormal or zero, and the relative L2 error of a round trip.
      """)

  @Argument(help: "The model's folder.")
  var model: String

  @Option(help: "A text file to run through the model (default: a built-in sample).")
  var text: String?

  @Option(help: "Where to write the scales (default: kv_scales.json in the model's folder).")
  var output: String?

  @Option(help: "Also draw the ranges of K and V of every layer into this SVG file.")
  var svg: String?

  @Option(help: "Tokens to run, at most.")
  var maxTokens = 4096

  @Option(help: "Room for magnitudes beyond those of the text, as a factor from 1 on.")
  var headroom = Calibration.defaultHeadroom

  @Flag(help: "Print the statistics, write nothing.")
  var dryRun = false

  @Option(help: "Worker threads (default: one per processor).")
  var threads: Int?

  func validate() throws {
    guard maxTokens > 0 else { throw ValidationError("expected --max-tokens of at least 1, found \(maxTokens)") }
    guard (1...1024).contains(headroom) else {
      throw ValidationError("expected --headroom from 1 to 1024, found \(headroom)")
    }
  }

  func run() throws {
    let directory = try ModelLocation.resolve(model)
    let sample = try text.map { try Console.readFile($0) } ?? CalibrationText.sample
    let tokenizer = try Tokenizer(contentsOf: directory)
    var bar = ProgressBar("calibrating \(directory)")
    let hasDraftLayers = try Checkpoint(directory: directory).hasDraftLayers
    let runtime = try ModelRuntime(
      directory: directory, threadCount: threads, speculation: hasDraftLayers ? try Speculation() : nil)
    let tokens = tokenizer.encode(sample, addSpecialTokens: true, allowSpecial: true).prefix(maxTokens)
    let calibration = try Calibration(
      runtime: runtime, tokens: Array(tokens), headroom: headroom, progress: { bar.update($0) })

    Console.write(table(calibration))
    if let svg { try Console.writeFile(CalibrationDrawing(calibration).svg, to: svg) }
    guard !dryRun else { return }
    let path = output ?? "\(directory)/\(KVScaleSet.fileName)"
    try Console.writeFile(calibration.scales(source: path).json.serialized(pretty: true) + "\n", to: path)
    Console.error("wrote \(path), from \(calibration.tokenCount) tokens")
  }

  private func table(_ calibration: Calibration) -> String {
    var lines = [
      [
        "layer", "side", "amax", "p99.9", "p99", "p50", "outlier channels", "subnormal scales: none, /6, /448, /2688",
        "nvfp4 error: none, /2688",
      ]
    ]
    for (index, layer) in calibration.layers.enumerated() {
      for side in [layer.key, layer.value] {
        let shares = side.choices.map { Format.number($0.subnormalScaleShare * 100, digits: 1) + "%" }
        let errors = [side.choices.first, side.choices.last].compactMap { $0 }.map {
          Format.number($0.relativeError, digits: 4)
        }
        lines.append([
          "\(index)", side.name, Format.number(Double(side.amax), digits: 3),
          Format.number(Double(side.percentiles.p999), digits: 3),
          Format.number(Double(side.percentiles.p99), digits: 3),
          Format.number(Double(side.percentiles.half), digits: 3), "\(side.outlierChannels.count)",
          shares.joined(separator: ", "), errors.joined(separator: ", "),
        ])
      }
    }
    let widths = lines[0].indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
    return lines.map { line in
      zip(line, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }.joined(separator: "  ") + "\n"
    }.joined()
  }
}

/// Bars from the median to amax of every layer, keys beside values, on a logarithmic scale.
struct CalibrationDrawing {
  let calibration: Calibration

  init(_ calibration: Calibration) { self.calibration = calibration }

  var svg: String {
    let sides = calibration.layers.flatMap { [$0.key, $0.value] }
    let top = sides.map(\.amax).max() ?? 1
    let (left, bottom, height, step) = (60, 260, 220, 22)
    let decades = 5.0
    func y(_ value: Float) -> Int {
      let share = value > 0 ? 1 + Double(logarithm(value / top)) / decades : 0
      return bottom - Int(Double(height) * min(1, max(0, share)))
    }
    let width = left + sides.count * step + 20
    var parts = [
      #"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \#(width) 310" font-family="sans-serif" font-size="11">"#,
      #"<rect width="100%" height="100%" fill="white"/>"#,
      "<text x=\"\(left)\" y=\"16\">Magnitudes of \(sides.first?.name ?? "K") (blue) and \(sides.dropFirst().first?.name ?? "V") (orange) by layer: median, 99%, 99.9%, largest</text>",
    ]
    for decade in 0...Int(decades) {
      let value = top * power(10, -decade)
      parts.append("<line x1=\"\(left)\" x2=\"\(width - 10)\" y1=\"\(y(value))\" y2=\"\(y(value))\" stroke=\"#ddd\"/>")
      parts.append(
        "<text x=\"\(left - 6)\" y=\"\(y(value) + 4)\" text-anchor=\"end\">\(Format.number(Double(value), digits: decade < 2 ? 1 : 4))</text>"
      )
    }
    for (index, side) in sides.enumerated() {
      let x = left + index * step + (index % 2 == 0 ? 4 : 0)
      let color = index % 2 == 0 ? "#2b6cb0" : "#dd6b20"
      for (value, opacity) in [
        (side.amax, 0.25), (side.percentiles.p999, 0.4), (side.percentiles.p99, 0.6), (side.percentiles.half, 1.0),
      ] {
        parts.append(
          "<rect x=\"\(x)\" y=\"\(y(value))\" width=\"16\" height=\"\(bottom - y(value))\" fill=\"\(color)\" fill-opacity=\"\(opacity)\"/>"
        )
      }
      if index % 2 == 0 {
        parts.append("<text x=\"\(x + 18)\" y=\"\(bottom + 16)\" text-anchor=\"middle\">\(index / 2)</text>")
      }
    }
    parts.append("<text x=\"\(left)\" y=\"\(bottom + 36)\">layer; \(calibration.tokenCount) tokens</text>")
    return parts.joined(separator: "\n") + "\n</svg>\n"
  }

  private func power(_ base: Float, _ exponent: Int) -> Float {
    (0..<abs(exponent)).reduce(Float(1)) { result, _ in exponent < 0 ? result / base : result * base }
  }

  /// log10, from the exponent and a series of the significand: accurate to a pixel.
  private func logarithm(_ value: Float) -> Float {
    let m = value.significand  // 1 ..< 2
    let t = (m - 1) / (m + 1)
    let ln = 2 * (t + t * t * t / 3 + t * t * t * t * t / 5)
    return (Float(value.exponent) * 0.693_147_2 + ln) * 0.434_294_5
  }
}

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
