import ArgumentParser
import Engine
import JSON
import KVQuantization
import ModelFamilies
import Operators
import PagedCache

/// What `bench decode` and `bench prefill` have in common: a model, recipes in turn, depths, repetitions.
struct BenchModelOptions: ParsableArguments {
  @Option(
    name: [.customLong("depth"), .customShort("d")],
    help: "Tokens in the cache before the measurement; a list separated by commas.")
  var depths = "0"

  @Option(name: .shortAndLong, help: "Measurements of each case.")
  var repetitions = 5

  @Option(help: "Recipes to compare, separated by commas.")
  var recipes = "nvfp4,fp8_e4m3,bf16"

  @Flag(help: "Print one JSON array instead of a table.")
  var json = false

  @Option(help: "Tokens a page, a multiple of 16.")
  var pageSize = 64

  @OptionGroup var dryRunOption: DryRunOption
  @OptionGroup(title: "Model") var model: ModelOptions

  func validate() throws {
    guard repetitions > 0 else { throw ValidationError("expected --repetitions of at least 1, found \(repetitions)") }
  }

  fileprivate func depthList() throws -> [Int] {
    try depths.split(separator: ",").map { word in
      guard let depth = Int(word), (0...ModelBenchmark.mostTokens).contains(depth) else {
        throw CommandFailure(
          .usage,
          "expected --depth as numbers from 0 to \(ModelBenchmark.mostTokens), separated by commas, found '\(word)'")
      }
      return depth
    }
  }
}

struct BenchDecode: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "decode",
    abstract: "Time a model token by token: tgN of one sequence at a depth, for several recipes in turn.")

  @Option(name: .customShort("n"), help: "Tokens a measurement.")
  var count = 128

  @OptionGroup var options: BenchModelOptions

  func run() throws {
    try ModelBenchmark(options: options, count: count, step: 1, label: "tg\(count)").run()
  }
}

struct BenchPrefill: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prefill",
    abstract: "Time a model on prompts: ppN of one sequence at a depth, for several recipes in turn.")

  @Option(name: .customShort("p"), help: "Tokens a measurement.")
  var count = 512

  @Option(help: "Tokens a step.")
  var chunkedPrefillSize = 512

  @OptionGroup var options: BenchModelOptions

  func validate() throws {
    guard chunkedPrefillSize > 0 else {
      throw ValidationError("expected --chunked-prefill-size of at least 1, found \(chunkedPrefillSize)")
    }
  }

  func run() throws {
    try ModelBenchmark(options: options, count: count, step: min(count, chunkedPrefillSize), label: "pp\(count)").run()
  }
}

/// Runs `count` tokens in steps of `step` at each depth, recipes in turn within a repetition, so that a drift of the machine
/// touches all alike.
private struct ModelBenchmark {
  /// Beyond any model's context, and small enough to be added up.
  static let mostTokens = 1 << 40

  let options: BenchModelOptions
  let count: Int
  let step: Int
  let label: String

  private struct Case {
    let recipe: KVRecipe
    let depth: Int
    let pool: PagePool
    var seconds: [Double] = []
  }

  func run() throws {
    guard (1...Self.mostTokens).contains(count) else {
      throw CommandFailure(.usage, "expected from 1 to \(Self.mostTokens) tokens a measurement, found \(count)")
    }
    let recipes = try options.recipes.split(separator: ",").map { try KVRecipe.named(String($0)) }
    let plans = try recipes.map(plan)
    if options.dryRunOption.dryRun { return RunPlanReport.write(plans, asJSON: options.json) }
    let runtime = try options.model.load()
    let model = runtime.model
    let weightBytes = try runtime.checkpoint.tensorNames.reduce(0) {
      $0 + (try runtime.checkpoint.tensor(named: $1).bytes.count)
    }
    var report: [JSONValue] = []
    if !options.json {
      Console.write(
        "\(runtime.checkpoint.directory), weights \((Double(weightBytes) / 1e6).decimals(1)) MB as stored, "
          + "attention \(runtime.attentionDecision.name): \(runtime.attentionDecision.reason)\n"
          + "tokens/s: median (best) of \(options.repetitions)\n\n| test | depth | recipe | tokens/s | ms a step | KV bytes a token |\n"
          + "|---|---|---|---|---|---|\n")
    }
    for depth in try options.depthList() {
      var cases = try recipes.map { try prepare($0, depth: depth, model: model) }
      for _ in 0..<options.repetitions {
        for index in cases.indices { cases[index].seconds.append(try measure(cases[index], model: model)) }
      }
      for result in cases {
        let line = describe(result, model: model)
        if options.json { report.append(line.json) } else { Console.write(line.text) }
      }
    }
    if options.json { Console.write(JSONValue.array(report).serialized(pretty: true) + "\n") }
  }

  /// What is decided for a recipe at the greatest depth; what can't work is refused before the model is loaded.
  private func plan(_ recipe: KVRecipe) throws -> RunPlan {
    let depth = try options.depthList().max() ?? 0
    var configuration = try EngineConfiguration(
      recipes: CacheRecipes(recipe), pageSize: options.pageSize,
      poolSize: .tokens(max(depth + count, options.pageSize)),
      chunkedPrefillSize: step, maxRunningRequests: 1, threadCount: options.model.threads)
    configuration.kvScales = KVScaleRequest(source: .none)
    var plan = try RunPlan(
      directory: try ModelLocation.resolve(options.model.model),
      attention: options.model.attentionRequest(configuration.recipes, pageSize: options.pageSize),
      configuration: configuration, weightType: options.model.weightType)
    guard depth + count <= plan.limits.contextLength else {
      throw CommandFailure(
        .usage,
        "depth \(depth) and \(count) tokens exceed the model's context of \(plan.limits.contextLength); ask for less")
    }
    plan.explain("model", "folder", options.model.folderReason)
    for side in ["dtype_k", "dtype_v", "dtype_latent"] { plan.explain("kv_cache", side, "--recipes") }
    plan.explain("kv_cache", "pages", "the greatest --depth and \(count) tokens")
    plan.explain("kv_scales", "source", "benchmarks run without scales")
    return plan
  }

  private func prepare(_ recipe: KVRecipe, depth: Int, model: any LanguageModel) throws -> Case {
    let layout = try model.cacheLayout(CacheRecipes(recipe), pageSize: options.pageSize)
    let pages = (depth + count + layout.pageSize - 1) / layout.pageSize
    let pool = try PagePool(
      layout: layout, layerCount: model.layerCount, pageCount: pages,
      scales: Array(repeating: .one, count: model.layerCount))
    try forward(0..<depth, step: 512, pool: pool, model: model)
    return Case(recipe: recipe, depth: depth, pool: pool)
  }

  private func measure(_ run: Case, model: any LanguageModel) throws -> Double {
    let clock = ContinuousClock()
    let start = clock.now
    try forward(run.depth..<run.depth + count, step: step, pool: run.pool, model: model)
    return (clock.now - start).inSeconds
  }

  /// Runs the tokens of some positions, a fixed pseudo-random text, with logits for the last of each step.
  private func forward(_ positions: Range<Int>, step: Int, pool: PagePool, model: any LanguageModel) throws {
    let logits = UnsafeMutableBufferPointer<Float>.allocate(capacity: model.vocabularySize)
    defer { logits.deallocate() }
    let pages = (0..<pool.pageCount).map { Int32($0) }
    var batch = StepBatch()
    for start in stride(from: positions.lowerBound, to: positions.upperBound, by: step) {
      let end = min(start + step, positions.upperBound)
      batch.removeAll()
      batch.append(
        tokens: (start..<end).map {
          Int32(truncatingIfNeeded: ($0 &* 2_654_435_761) >> 7 & 0x7FFF_FFFF) % Int32(model.vocabularySize)
        },
        start: start, pages: pages, logits: .last)
      try model.forward(batch, pool: pool, logits: logits)
    }
  }

  private func describe(_ result: Case, model: any LanguageModel) -> (text: String, json: JSONValue) {
    let sorted = result.seconds.sorted()
    let (best, median) = (sorted[0], sorted[sorted.count / 2])
    let steps = Double((count + step - 1) / step)
    let bytes = result.pool.layout.bytesPerToken * model.layerCount
    let text =
      "| \(label) | \(result.depth) | \(result.recipe.name) | \((Double(count) / median).decimals(1)) "
      + "(\((Double(count) / best).decimals(1))) | \((median / steps * 1000).decimals(3)) | \(bytes) |\n"
    return (
      text,
      [
        "test": .string(label), "depth": .integer(Int64(result.depth)), "recipe": .string(result.recipe.name),
        "tokens_per_second": .number(Double(count) / median), "best_tokens_per_second": .number(Double(count) / best),
        "milliseconds_per_step": .number(median / steps * 1000), "kv_bytes_per_token": .integer(Int64(bytes)),
      ]
    )
  }
}
