import ArgumentParser
import Engine
import JSON
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import TextCodec

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
    let pair = try RecipePair(name)
    var configuration = try EngineConfiguration(
      recipes: pair.second.map { CacheRecipes(key: pair.first, value: $0, rope: $0) } ?? CacheRecipes(pair.first),
      pageSize: pageSize, threadCount: modelOptions.threads)
    configuration.kvScales = try scaleOptions.request()
    return configuration
  }

  // MARK: Files

  private func lines(of path: String, _ key: String, _ tokenizer: Tokenizer) throws -> [[Int32]] {
    try JSONLines.read(path, limit: limit).map { line in
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
