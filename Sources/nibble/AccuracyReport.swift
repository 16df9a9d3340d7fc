import Engine
import JSON
import KVQuantization
import ModelFamilies
import Operators
import PagedCache

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What one recipe cost.
struct AccuracyRow {
  struct Answers {
    let right: Int
    let of: Int
    let subnormalScaleShare: Double
  }

  let recipe: String
  var answers: Answers?
  /// Negative log-likelihoods of the tokens that came, summed, and how many.
  var loss = 0.0
  var predictions = 0
  /// Divergences from an exact cache, summed over positions.
  var divergence = 0.0
  var sameTop = 0
  var positions = 0

  init(recipe: String) { self.recipe = recipe }

  var perplexity: Double { exp(loss / Double(predictions)) }

  static func table(_ rows: [AccuracyRow]) -> String {
    var lines = [
      "| recipe | perplexity | divergence | same top token | word problems |", "|---|---|---|---|---|",
    ]
    for row in rows {
      let text =
        row.positions == 0
        ? "- | - | -"
        : "\(row.perplexity.decimals(3)) | \((row.divergence / Double(row.positions)).decimals(5)) | "
          + "\((100 * Double(row.sameTop) / Double(row.positions)).decimals(1))%"
      lines.append("| \(row.recipe) | \(text) | \(row.answers.map { "\($0.right) of \($0.of)" } ?? "-") |")
    }
    return lines.joined(separator: "\n") + "\n"
  }

  var json: JSONValue {
    var object = JSONObject([("recipe", .string(recipe))])
    if positions > 0 {
      object["predictions"] = .integer(Int64(predictions))
      object["perplexity"] = .number(perplexity)
      object["divergence"] = .number(divergence / Double(positions))
      object["same_top_token"] = .number(Double(sameTop) / Double(positions))
    }
    if let answers {
      object["right_answers"] = .integer(Int64(answers.right))
      object["problems"] = .integer(Int64(answers.of))
      object["subnormal_scale_share"] = .number(answers.subnormalScaleShare)
    }
    return .object(object)
  }
}

/// Runs texts through a model once with an exact cache and once for each recipe, chunk by chunk, and compares the logits.
struct TextAccuracy {
  let plans: [RunPlan]
  let model: ModelOptions
  let pageSize: Int
  private static let chunk = 128

  func run(_ documents: [[Int32]], into rows: inout [AccuracyRow]) throws {
    let exact = try ModelRuntime(
      directory: plans[0].directory, attention: AttentionRequest(backend: "reference", recipes: CacheRecipes(.f32)),
      threadCount: model.threads, weightType: model.weightType)
    let runtime = try ModelRuntime(
      directory: plans[0].directory,
      attention: model.attentionRequest(plans[0].recipes, pageSize: pageSize), threadCount: model.threads,
      weightType: model.weightType)
    let width = runtime.model.vocabularySize
    let logits = UnsafeMutableBufferPointer<Float>.allocate(capacity: Self.chunk * width)
    let expected = UnsafeMutableBufferPointer<Float>.allocate(capacity: Self.chunk * width)
    defer {
      logits.deallocate()
      expected.deallocate()
    }
    var bar = ProgressBar("texts")
    for (place, tokens) in documents.enumerated() where tokens.count > 1 {
      let tokens = Array(tokens.prefix(runtime.model.contextLimit))
      let base = try pool(exact.model, CacheRecipes(.f32), nil, tokens.count)
      let pools = try plans.map { try pool(runtime.model, $0.recipes, $0.scales.layers, tokens.count) }
      for start in stride(from: 0, to: tokens.count, by: Self.chunk) {
        let range = start..<min(start + Self.chunk, tokens.count)
        try forward(exact.model, tokens, range, base, expected)
        for (index, pool) in pools.enumerated() {
          try forward(runtime.model, tokens, range, pool, logits)
          for position in range {
            let row = (position - start) * width..<(position - start + 1) * width
            rows[index].add(
              UnsafeBufferPointer(rebasing: logits[row]), expected: UnsafeBufferPointer(rebasing: expected[row]),
              next: position + 1 < tokens.count ? Int(tokens[position + 1]) : nil)
          }
        }
      }
      bar.update(Double(place + 1) / Double(documents.count))
    }
  }

  private func pool(
    _ model: any LanguageModel, _ recipes: CacheRecipes, _ scales: [DecodeScales]?, _ tokens: Int
  ) throws -> PagePool {
    try PagePool(
      layout: try model.cacheLayout(recipes, pageSize: pageSize), layerCount: model.layerCount,
      pageCount: (tokens + pageSize - 1) / pageSize,
      scales: scales ?? Array(repeating: .one, count: model.layerCount))
  }

  private func forward(
    _ model: any LanguageModel, _ tokens: [Int32], _ range: Range<Int>, _ pool: PagePool,
    _ logits: UnsafeMutableBufferPointer<Float>
  ) throws {
    var batch = StepBatch()
    batch.append(
      tokens: tokens[range], start: range.lowerBound, pages: (0..<pool.pageCount).map { Int32($0) }, logits: .all)
    try model.forward(batch, pool: pool, logits: logits)
  }
}

extension AccuracyRow {
  /// Adds one position.
  /// - Parameter next: the token that came, if one did.
  mutating func add(_ logits: UnsafeBufferPointer<Float>, expected: UnsafeBufferPointer<Float>, next: Int?) {
    let (own, exact) = (Distribution(logits), Distribution(expected))
    if let next {
      loss -= Double(logits[next]) - own.logSum
      predictions += 1
    }
    for index in logits.indices {
      let logProbability = Double(expected[index]) - exact.logSum
      divergence += exp(logProbability) * (logProbability - Double(logits[index]) + own.logSum)
    }
    sameTop += own.top == exact.top ? 1 : 0
    positions += 1
  }

  private struct Distribution {
    let logSum: Double
    let top: Int

    init(_ logits: UnsafeBufferPointer<Float>) {
      var top = 0
      for index in logits.indices where logits[index] > logits[top] { top = index }
      let largest = Double(logits[top])
      self.top = top
      logSum = largest + log(logits.reduce(0) { $0 + exp(Double($1) - largest) })
    }
  }
}
