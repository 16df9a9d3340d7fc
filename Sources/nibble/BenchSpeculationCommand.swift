import ArgumentParser
import Engine
import JSON
import KVQuantization
import ModelFamilies
import TextCodec

/// `nibble bench speculation`: what drafts bring, and that they change nothing.
struct BenchSpeculationCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "speculation",
    abstract: "Measure decoding with and without drafts over word problems.",
    discussion: """
      Every problem is answered greedily by an engine for each number of drafts, in turn, round after round, one request at a time \
      and nothing cached between them. 'tokens/s' is of decoding alone: all answers' tokens after their first over the sum of \
      each answer's best time (median in brackets), 'speed' its ratio to that without drafts. 'same' counts answers \
      that are token for token those without drafts; anything else is a defect.
      """)

  @Option(help: #"A file of {"prompt": ..., "answer": ...} a line."#)
  var problems = "Evaluation/word_problems.jsonl"

  @Option(help: "Problems to run at most.")
  var limit = 24

  @Option(parsing: .upToNextOption, help: "Recipes of the cache; L/D takes D for the draft layers' pages.")
  var recipes = ["bf16", "fp8_e4m3", "nvfp4"]

  @Option(parsing: .upToNextOption, help: "Numbers of drafts to compare with none.")
  var drafts = [1, 2, 3, 4]

  @Option(help: "Rounds.")
  var rounds = 5

  @Option(help: "Tokens of an answer, at most.")
  var maxTokens = 256

  @Flag(help: "Print JSON.")
  var json = false

  @OptionGroup var dryRunOption: DryRunOption
  @OptionGroup(title: "Model") var modelOptions: ModelOptions
  @OptionGroup(title: "KV cache") var scaleOptions: KVScaleOptions

  func validate() throws {
    guard limit > 0, rounds > 0, maxTokens > 1, !recipes.isEmpty, drafts.allSatisfy({ $0 > 0 }) else {
      throw ValidationError(
        "expected positive --limit, --rounds and --drafts, at least one of --recipes, and --max-tokens from 2 on")
    }
  }

  func run() async throws {
    // Without drafts and with the most of them; what lies between decides alike.
    let plans = try recipes.flatMap { name in try [nil, drafts.max()].map { try self.plan(name, drafts: $0) } }
    guard !dryRunOption.dryRun else { return RunPlanReport.write(plans, asJSON: json) }
    let plan = plans[0]
    let problems = try WordProblem.read(self.problems, limit: limit, plan: plan)
    var report: [JSONValue] = []
    if !json { Console.write(SpeculationRow.header(problems.count)) }
    for recipe in recipes {
      for row in try await measure(recipe, problems, plan) {
        if json { report.append(row.json) } else { Console.write(row.line) }
      }
    }
    if json { Console.write(JSONValue.array(report).serialized(pretty: true) + "\n") }
  }

  private func configuration(_ recipes: CacheRecipes, _ speculation: Speculation?) throws -> EngineConfiguration {
    var configuration = try EngineConfiguration(
      recipes: recipes, poolSize: .tokens(8192), sharesPrefixes: false, threadCount: modelOptions.threads,
      speculation: speculation)
    configuration.kvScales = try scaleOptions.request()
    return configuration
  }

  /// The recipes of the main model's cache and of the draft layers'.
  private func pair(_ name: String) throws -> (main: CacheRecipes, drafts: CacheRecipes) {
    let pair = try RecipePair(name)
    return (CacheRecipes(pair.first), CacheRecipes(pair.second ?? pair.first))
  }

  private func plan(_ name: String, drafts count: Int?) throws -> RunPlan {
    let (main, own) = try pair(name)
    var plan = try RunPlan(
      directory: try ModelLocation.resolve(modelOptions.model),
      attention: modelOptions.attentionRequest(main, pageSize: 64, drafts: count ?? 0),
      configuration: configuration(main, try count.map { try Speculation(draftTokenCount: $0, recipes: own) }),
      weightType: modelOptions.weightType)
    plan.explain("model", "folder", modelOptions.folderReason)
    return plan
  }

  private func measure(_ name: String, _ problems: [WordProblem], _ plan: RunPlan) async throws -> [SpeculationRow] {
    let (main, own) = try pair(name)
    let counts = [nil] + drafts.map { $0 as Int? }
    let engines = try counts.map { count in
      let speculation = try count.map { try Speculation(draftTokenCount: $0, recipes: own) }
      let configuration = try configuration(main, speculation)
      let runtime = try ModelRuntime(
        directory: plan.directory,
        attention: modelOptions.attentionRequest(main, pageSize: 64, drafts: count ?? 0),
        threadCount: modelOptions.threads, weightType: modelOptions.weightType, speculation: speculation)
      return try Engine(
        LoadedModel(runtime, configuration: configuration, tokenizer: plan.tokenizer), configuration: configuration)
    }
    var rows = counts.map { SpeculationRow(recipe: name, drafts: $0 ?? 0) }
    for problem in problems {
      let request = Request(tokens: problem.prompt, sampling: try SamplingParameters(maxTokens: maxTokens))
      var seconds = engines.map { _ in [Double]() }
      var expected: [Int32] = []
      for round in 0..<rounds {
        for (index, engine) in engines.enumerated() {
          let answer = try await Self.answer(request, engine)
          seconds[index].append(answer.seconds)
          guard round == 0 else { continue }
          if index == 0 { expected = answer.tokens }
          rows[index].take(
            answer, isRight: WordProblem.result(answer.text) == problem.answer, isSame: answer.tokens == expected)
        }
      }
      for index in rows.indices { rows[index].take(seconds[index]) }
    }
    let plainRate = rows[0].rate
    for (index, engine) in engines.enumerated() {
      rows[index].speed = rows[index].rate / plainRate
      rows[index].speculation = engine.statistics().speculation
      await engine.shutDown()
    }
    return rows
  }

  private static func answer(
    _ request: Request, _ engine: Engine
  ) async throws -> (tokens: [Int32], text: String, seconds: Double) {
    var result = (tokens: [Int32](), text: "", seconds: 0.0)
    for try await event in engine.generate(request) {
      switch event {
      case .token(let token):
        result.tokens.append(token.id)
        result.text += token.text
      case .finished(let completion):
        result.text += completion.text
        result.seconds = completion.timings.decode.inSeconds
      }
    }
    return result
  }
}

/// One number of drafts with one recipe.
struct SpeculationRow {
  let recipe: String
  let drafts: Int
  private var problems = 0
  private var right = 0
  private var same = 0
  /// After the first of each answer.
  private var tokens = 0
  private var best = 0.0
  private var median = 0.0
  var speculation = SpeculationStatistics()
  var speed = 1.0

  init(recipe: String, drafts: Int) {
    self.recipe = recipe
    self.drafts = drafts
  }

  /// Tokens a second, best of each answer.
  var rate: Double { Double(tokens) / best }

  mutating func take(_ answer: (tokens: [Int32], text: String, seconds: Double), isRight: Bool, isSame: Bool) {
    problems += 1
    tokens += answer.tokens.count - 1
    if isRight { right += 1 }
    if isSame { same += 1 }
  }

  /// The rounds of an answer.
  mutating func take(_ seconds: [Double]) {
    let sorted = seconds.sorted()
    best += sorted[0]
    median += sorted[sorted.count / 2]
  }

  private var tokensPerStep: Double { drafts == 0 ? 1 : speculation.tokensPerStep }

  static func header(_ problems: Int) -> String {
    "\(problems) problems\n\n| recipe | drafts | right | same | accepted | tokens a step | tokens/s | speed |\n"
      + "|---|---|---|---|---|---|---|---|\n"
  }

  var line: String {
    let accepted = drafts == 0 ? "-" : (100 * speculation.acceptanceRate).decimals(1) + "%"
    return "| \(recipe) | \(drafts) | \(right) | \(same) | \(accepted) | \(tokensPerStep.decimals(2)) | "
      + "\(rate.decimals(0)) (\((Double(tokens) / median).decimals(0))) | \(speed.decimals(2)) |\n"
  }

  var json: JSONValue {
    [
      "recipe": .string(recipe), "draft_tokens": .integer(Int64(drafts)), "problems": .integer(Int64(problems)),
      "right_answers": .integer(Int64(right)), "same_answers": .integer(Int64(same)),
      "acceptance_rate": .number(speculation.acceptanceRate), "tokens_per_step": .number(tokensPerStep),
      "tokens_per_second": .number(rate), "tokens_per_second_median": .number(Double(tokens) / median),
      "speed": .number(speed),
    ]
  }
}
