import ArgumentParser
import Engine
import JSON
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import TextCodec

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// `nibble bench accuracy`: what a cache's recipe costs a model in answers and in predictions.
struct BenchAccuracyCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "accuracy",
    abstract: "Measure what each recipe costs a model: answers of word problems, predictions of a text.",
    discussion: """
      A recipe K/V (MLA: latent/rotary key) stands for two. Problems are answered greedily; the number after #### counts. Texts run \
      teacher-forced: perplexity, the mean Kullback-Leibler divergence of the next-token distribution from that of an f32 cache \
      under reference attention, in nats, and the share of positions whose likeliest token is the same.
      """)

  @Option(help: #"A file of {"prompt": ..., "answer": ...} a line."#)
  var problems: String?

  @Option(help: #"A file of {"text": ...} a line."#)
  var text: String?

  @Option(help: "Problems, and texts, to run at most.")
  var limit: Int?

  @Option(help: "Tokens of a text, at most.")
  var textTokens = 1536

  @Option(help: "Tokens of an answer, at most.")
  var maxTokens = 256

  @Option(help: "Recipes to compare, separated by commas.")
  var recipes = "f32,bf16,fp8_e4m3,nvfp4,nvfp4_4over6,fp4_mx_block16,mxfp4"

  @Option(help: "Tokens a page, a multiple of 16.")
  var pageSize = 64

  @Flag(help: "Print one JSON array instead of a table.")
  var json = false

  @OptionGroup var dryRunOption: DryRunOption
  @OptionGroup(title: "Model") var modelOptions: ModelOptions
  @OptionGroup(title: "KV cache") var scaleOptions: KVScaleOptions

  func validate() throws {
    guard problems != nil || text != nil else { throw ValidationError("expected --problems FILE, --text FILE or both") }
    guard limit ?? 1 > 0, textTokens > 1, maxTokens > 0 else {
      throw ValidationError("expected positive --limit and --max-tokens, and --text-tokens from 2 on")
    }
  }

  func run() async throws {
    let names = recipes.split(separator: ",").map(String.init)
    let configurations = try names.map(configuration)
    let directory = try ModelLocation.resolve(modelOptions.model)
    let plans = try configurations.map { configuration in
      var plan = try RunPlan(
        directory: directory, attention: modelOptions.attentionRequest(configuration.recipes, pageSize: pageSize),
        configuration: configuration, weightType: modelOptions.weightType)
      plan.explain("model", "folder", modelOptions.folderReason)
      for side in ["dtype_k", "dtype_v", "dtype_latent", "dtype_rope"] { plan.explain("kv_cache", side, "--recipes") }
      return plan
    }
    guard !dryRunOption.dryRun else { return RunPlanReport.write(plans, asJSON: json) }

    var rows = names.map { AccuracyRow(recipe: $0) }
    if let text {
      let documents = try lines(of: text, "text", plans[0].tokenizer)
      try TextAccuracy(plans: plans, model: modelOptions, pageSize: pageSize)
        .run(documents.map { Array($0.prefix(textTokens)) }, into: &rows)
    }
    if let problems {
      let problems = try WordProblem.read(problems, limit: limit, plan: plans[0])
      for index in names.indices {
        rows[index].answers = try await answer(problems, plans[index], configurations[index])
      }
    }
    if json {
      Console.write(JSONValue.array(rows.map(\.json)).serialized(pretty: true) + "\n")
    } else {
      Console.write(AccuracyRow.table(rows))
    }
  }

  private func configuration(_ name: String) throws -> EngineConfiguration {
    let parts = try name.split(separator: "/", omittingEmptySubsequences: false).map { try KVRecipe.named(String($0)) }
    guard parts.count <= 2 else {
      throw CommandFailure(.usage, "expected a recipe, or K/V, in --recipes, found '\(name)'")
    }
    var configuration = try EngineConfiguration(
      recipes: parts.count == 1
        ? CacheRecipes(parts[0]) : CacheRecipes(key: parts[0], value: parts[1], rope: parts[1]),
      pageSize: pageSize, threadCount: modelOptions.threads)
    configuration.kvScales = try scaleOptions.request()
    return configuration
  }

  // MARK: Files

  private func members(of path: String) throws -> [JSONValue] {
    let lines = try Console.readFile(path).split(separator: "\n").prefix(limit ?? .max)
    guard !lines.isEmpty else { throw CommandFailure(.data, "'\(path)' is empty; expected one JSON object a line") }
    return try lines.map { try JSONValue.parse(bytes: Array($0.utf8)) }
  }

  private func lines(of path: String, _ key: String, _ tokenizer: Tokenizer) throws -> [[Int32]] {
    try members(of: path).map { line in
      guard let text = line[key]?.stringValue else {
        throw CommandFailure(.data, "'\(path)' has a line without '\(key)'; expected one JSON object with it a line")
      }
      return tokenizer.encode(text, addSpecialTokens: true, allowSpecial: false)
    }
  }

  // MARK: Word problems

  private func answer(
    _ problems: [WordProblem], _ plan: RunPlan, _ configuration: EngineConfiguration
  ) async throws -> AccuracyRow.Answers {
    let runtime = try ModelRuntime(
      directory: plan.directory,
      attention: modelOptions.attentionRequest(configuration.recipes, pageSize: pageSize),
      threadCount: modelOptions.threads, weightType: modelOptions.weightType)
    let engine = try Engine(
      LoadedModel(runtime, configuration: configuration, tokenizer: plan.tokenizer), configuration: configuration)
    let right = try await withThrowingTaskGroup(of: Bool.self) { group in
      for problem in problems {
        let request = Request(tokens: problem.prompt, sampling: try SamplingParameters(maxTokens: maxTokens))
        group.addTask {
          var text = ""
          for try await event in engine.generate(request) {
            switch event {
            case .token(let token): text += token.text
            case .finished(let completion): text += completion.text
            }
          }
          return WordProblem.result(text) == problem.answer
        }
      }
      return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
    }
    let share = engine.statistics().kvCache.subnormalScaleShare
    await engine.shutDown()
    return AccuracyRow.Answers(right: right, of: problems.count, subnormalScaleShare: share)
  }
}

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
private struct TextAccuracy {
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
