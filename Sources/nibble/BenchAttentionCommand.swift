import ArgumentParser
import CPUBackend
import CSIMD
import Engine
import KVQuantization
import Operators
import PagedCache

/// Times the CPU's attention kernels.
struct BenchAttentionCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attention",
    abstract: "Time attention over a quantised KV cache on the CPU, beside the memory's read bandwidth.",
    discussion: """
      Every recipe has a pool of random rows in random pages, larger than the caches (layers take turns). Within a round the read \
      bandwidth is measured and recipes take turns. 'ns' is the time of one layer per token of context and KV head (and new \
      token, in prefill), best round and median; 'share' is the rate of cache bytes over the read bandwidth of the same run; GFLOP/s count what \
      attention needs, however it is computed.
      """)

  enum Kind: String, ExpressibleByArgument, CaseIterable { case gqa, mla }
  enum Phase: String, ExpressibleByArgument, CaseIterable { case decode, prefill }

  @Option(help: "Grouped-query (gqa) or latent (mla) attention.")
  var kind = Kind.gqa

  @Option(help: "Query heads; default: 16, and 128 for mla.")
  var heads: Int?

  @Option(help: "KV heads of gqa.")
  var kvHeads = 4

  @Option(help: "Values of a head; for mla those of the latent (default 512).")
  var headDim: Int?

  @Option(help: "Values of mla's rotary key, stored in bf16.")
  var ropeDim = 64

  @Option(parsing: .upToNextOption, help: "Recipes of keys and values; K and V may differ: fp8_e4m3/nvfp4.")
  var recipes = ["nvfp4", "fp8_e4m3", "bf16"]

  @Option(parsing: .upToNextOption, help: "Tokens of context, those of a prefill not counted.")
  var contexts = [4096, 32768, 131_072]

  @Option(help: "Sequences in a step.")
  var batch = 1

  @OptionGroup var threadsOption: ThreadsOption

  @Option(
    parsing: .upToNextOption,
    help: "As in generate: full, fast or both; a recipe whose values fast doesn't change is measured once.")
  var attentionPrecision = [AttentionPrecision.full]

  @Option(help: "One new token a sequence (decode), or --tokens of them (prefill).")
  var phase = Phase.decode

  @Option(help: "New tokens of a prefill.")
  var tokens = 512

  @Option(help: "Tokens of a page.")
  var pageSize = 64

  @Option(help: "Rounds.")
  var rounds = 9

  @Flag(help: "Print a Markdown table.")
  var markdown = false

  @Flag(help: "Print JSON.")
  var json = false

  @Option(help: "Write a diagram of time against context to this file.")
  var svg: String?

  func validate() throws {
    for (name, value) in [
      ("--heads", heads ?? 1), ("--kv-heads", kvHeads), ("--head-dim", headDim ?? 1), ("--rope-dim", ropeDim),
      ("--batch", batch), ("--tokens", tokens), ("--rounds", rounds),
      ("--contexts", contexts.min() ?? 0), ("--contexts", contexts.max() ?? 0),
    ] where value < 1 || value > 1 << 24 {
      throw ValidationError("expected \(name) to be between 1 and 16777216, found \(value)")
    }
    guard kind == .mla || queryHeads % kvHeads == 0 else {
      throw ValidationError("expected --heads to be a multiple of --kv-heads, found \(queryHeads) and \(kvHeads)")
    }
    for name in recipes {
      let layout: CacheLayout
      do { layout = try self.layout(name) } catch { throw ValidationError("\(error)") }
      guard FastAttention.supports(layout) else {
        throw ValidationError("expected --head-dim and --rope-dim to be multiples of 16: the kernels read no others")
      }
    }
    guard !recipes.isEmpty else { throw ValidationError("expected at least one recipe") }
    guard Set(attentionPrecision).count == attentionPrecision.count else {
      throw ValidationError("expected --attention-precision full, fast or both, found one of them twice")
    }
    let available = PoolPlan.availableMemory()
    for context in contexts {
      let needed = try memory(context: context)
      guard needed <= Double(available) else {
        throw ValidationError(
          "--contexts \(context) with --batch \(batch) needs \((needed / 1e9).decimals(1)) GB for its \(recipes.count) recipes; "
            + "expected at most the \((Double(available) / 1e9).decimals(1)) GB that are available; try fewer recipes or tokens"
        )
      }
    }
  }

  private var newTokens: Int { phase == .decode ? 1 : tokens }
  private var queryHeads: Int { heads ?? (kind == .mla ? 128 : 16) }

  private func layout(_ name: String) throws -> CacheLayout {
    let parts = try name.split(separator: "/").map { try KVRecipe.named(String($0)) }
    guard let key = parts.first, let value = parts.last, parts.count <= 2 else {
      throw ValidationError("expected a recipe or two with a slash between, found '\(name)'")
    }
    switch kind {
    case .gqa:
      return .mha(
        try MHALayout(
          kvHeadCount: kvHeads, headDimension: headDim ?? 128, pageSize: pageSize, recipeK: key, recipeV: value))
    case .mla:
      return .mla(
        try MLALayout(
          latentDimension: headDim ?? 512, ropeDimension: ropeDim, pageSize: pageSize, recipeLatent: key,
          recipeRope: .bf16))
    }
  }

  /// Bytes that the pools and rows of one context take, as a floating-point number because the product of the flags may be anything.
  private func memory(context: Int) throws -> Double {
    try recipes.reduce(0) { sum, name in
      let layout = try layout(name)
      let cache = Double(layout.bytesPerToken) * Double(context + newTokens) * Double(batch)
      let rows =
        Double(newTokens) * Double(batch) * Double(queryHeads) * Double(layout.regions.map(\.dimension).max() ?? 0)
      return sum + max(cache, Double(BenchAttentionWorkload.leastBytes)) + 8 * rows
    }
  }

  /// Those asked for that differ here.
  private func precisions(_ layout: CacheLayout) -> [AttentionPrecision] {
    let (key, value) =
      switch layout {
      case .mha(let layout): (layout.recipeK, layout.recipeV)
      case .mla(let layout): (layout.recipeLatent, layout.recipeLatent)
      }
    return AttentionPrecision.matters(at: nb_level_active(), key: key, value: value) ? attentionPrecision : [.full]
  }

  private struct Run {
    let recipe: String
    let workload: BenchAttentionWorkload
    let attention: FastAttention
    var samples = BenchSamples()

    mutating func measure() { samples.measure { workload.step(attention) } }
  }

  func run() throws {
    let workers = threadsOption.makeWorkers()
    let setting = BenchAttentionReport.Setting(
      kind: kind.rawValue, phase: phase.rawValue, queryHeads: queryHeads, kvHeads: kind == .mla ? 1 : kvHeads,
      batch: batch, newTokens: newTokens, threads: workers.threadCount,
      level: String(cString: nb_level_name(nb_level_active())), rounds: rounds)
    var report = BenchAttentionReport(setting: setting)
    let yardstick = ReadYardstick(byteCount: 512 << 20)
    for context in contexts {
      let workloads = try recipes.map {
        try BenchAttentionWorkload(
          layout: layout($0), queryHeads: queryHeads, context: context, newTokens: newTokens, batch: batch)
      }
      var runs = zip(recipes, workloads).flatMap { recipe, workload in
        precisions(workload.pool.layout).map { precision in
          Run(
            recipe: recipe, workload: workload,
            attention: FastAttention(workers: workers, precision: precision))
        }
      }
      for run in runs { run.workload.step(run.attention) }
      for _ in 0..<rounds {
        yardstick.measure(workers)
        for index in runs.indices { runs[index].measure() }
      }
      for run in runs {
        let layers = Double(run.workload.pool.layerCount)
        report.rows.append(
          .init(
            recipe: run.recipe, precision: run.attention.precision, context: context, bytes: run.workload.bytesPerLayer,
            operations: run.workload.operationsPerLayer, best: run.samples.best / layers,
            median: run.samples.median / layers))
      }
    }
    report.readBandwidth = yardstick.bytesPerSecond
    if json {
      Console.write(report.json + "\n")
    } else {
      Console.write(markdown ? report.markdown : report.text)
    }
    if let svg { try Console.writeFile(report.svg, to: svg) }
  }
}
