import Checkpoints
import Engine
import KVQuantization
import ModelFamilies
import TestSupport
import Testing

/// Speculative decoding changes nothing but the number of steps: not a token, not a bit of the logits, not a byte of the cache.
@Suite struct SpeculationTests {
  /// Unoptimised kernels are slow: a debug build tries every number of drafts with one recipe alone.
  #if DEBUG
    static let counts = [2, 4]
  #else
    static let counts = [1, 2, 3, 4]
  #endif

  /// Every recipe, latents with and without rotary keys of their own recipe, one to four drafts, alone and in a batch, both backends.
  /// Half of the drafts are spoilt, so that every check has something to reject.
  @Test(arguments: KVRecipe.allCases, [true, false])
  func changesNothing(recipe: KVRecipe, isFast: Bool) async throws {
    try await check(
      SpeculationRig(recipes: CacheRecipes(recipe), isFast: isFast, misguides: true),
      counts: recipe == .nvfp4 ? [1, 2, 3, 4] : Self.counts)
  }

  @Test(arguments: [(KVRecipe.nvfp4, KVRecipe.nvfp4), (.fp8E4M3, .fp8E4M3), (.mxfp4, .fp4MXBlock16), (.bf16, .mxfp4)])
  func rotaryKeysOfAnyRecipe(latent: KVRecipe, rope: KVRecipe) async throws {
    let recipes = CacheRecipes(key: latent, value: latent, rope: rope)
    try await check(SpeculationRig(recipes: recipes, misguides: true), counts: [3])
  }

  /// The draft layers' pages have recipes of their own, and there may be more layers than one.
  @Test(arguments: ["deepseek-v3", "deepseek-v3-mtp2"], [KVRecipe.f32, .bf16, .fp8E4M3, .mxfp4])
  func draftPagesOfAnyRecipe(model: String, recipe: KVRecipe) async throws {
    let rig = SpeculationRig(model: model, draftRecipes: CacheRecipes(recipe), misguides: true)
    try await check(rig, counts: Self.counts)
    let speculation = try rig.engine(drafts: 1).statistics().speculation
    let layers = model == "deepseek-v3" ? 1 : 2
    let rope: KVRecipe = recipe == .f32 ? .f32 : .bf16
    #expect(speculation.draftDtypeK == recipe.name && speculation.draftDtypeV == rope.name)
    #expect(
      speculation.draftBytesPerToken == layers * (recipe.rowBytes(dimension: 64) + rope.rowBytes(dimension: 32)))
  }

  private func check(_ rig: SpeculationRig, counts: [Int]) async throws {
    // Answers that stop early leave drafts behind them; the others' last drafts end with the answer.
    let requests = try await rig.stopping(rig.requests())
    let plain = try await rig.engine(drafts: nil).outcomes(ofAll: requests)
    #expect(plain.map(\.reason) == [.length, .stop, .stop, .stop])
    let stored = try zip(requests, plain).map { try rig.expected($0, $1) }
    for count in counts {
      let together = try rig.engine(drafts: count)
      #expect(try await together.outcomes(ofAll: requests) == plain, "\(count) drafts, in a batch")
      let speculation = together.statistics().speculation
      #expect(speculation.acceptedTokens < speculation.draftTokens)
      let alone = try rig.engine(drafts: count)
      for (index, request) in requests.enumerated() {
        #expect(try await alone.outcome(of: request) == plain[index], "\(count) drafts, alone")
        for engine in [together, alone] {
          #expect(try await rig.stored(request, plain[index], in: engine) == stored[index], "\(count) drafts")
        }
      }
    }
  }

  @Test func sameDrawsWithASeed() async throws {
    let rig = SpeculationRig()
    let requests = try rig.requests(sampled: true)
    let plain = try await rig.engine(drafts: nil).outcomes(ofAll: requests)
    #expect(try await rig.engine(drafts: 3).outcomes(ofAll: requests) == plain)
  }

  /// A pool that makes requests give way, by swap and by computing again in several steps; choices that part after a prompt.
  @Test(arguments: [("deepseek-v3", true, 0), ("deepseek-v3", false, 0), ("deepseek-v3-mtp2", false, 1 << 20)])
  func underPressure(model: String, sharesPrefixes: Bool, swap: Int) async throws {
    let plainRig = SpeculationRig(model: model)
    var requests = try plainRig.requests(sampled: true, maxTokens: 30)
    requests.append(try request(prompt(9, length: 20, vocabulary: 128), maxTokens: 24, seed: 5))
    let plain = try await plainRig.engine(drafts: nil).outcomes(ofAll: requests)
    let rig = SpeculationRig(
      model: model, misguides: true, poolTokens: 112, chunk: 9, swap: swap, sharesPrefixes: sharesPrefixes)
    let small = try rig.engine(drafts: 4)
    #expect(try await small.outcomes(ofAll: requests) == plain)
    #expect(small.statistics().preemptions > 0)
    #expect(swap == 0 || small.statistics().swapOuts > 0)

    var forked = try request(prompt(7, length: 21, vocabulary: 128), maxTokens: 15, seed: 3)
    forked.choiceCount = 3
    let expected = try await plainRig.engine(drafts: nil).outcomes(of: forked)
    #expect(try await SpeculationRig(model: model, misguides: true).engine(drafts: 2).outcomes(of: forked) == expected)
  }

  // MARK: Prefixes

  /// A prompt that goes on from a cached one, whole pages or a part, leaves the pages that it would leave by itself: the draft
  /// layers' too, though no hidden state is cached.
  @Test(arguments: ["deepseek-v3", "deepseek-v3-mtp2"], [1, 2, 16, 21, 32, 47])
  func goesOnFromACachedPrefix(model: String, cached: Int) async throws {
    let rig = SpeculationRig(model: model, draftRecipes: CacheRecipes(.fp8E4M3), misguides: true)
    let tokens = prompt(3, length: 50, vocabulary: 128)
    let whole = try request(tokens, maxTokens: 12)
    let plain = try await rig.engine(drafts: nil).outcome(of: whole)
    let engine = try rig.engine(drafts: 2)
    _ = try await engine.outcome(of: request(Array(tokens.prefix(cached)) + [5, 6, 7], maxTokens: 5))
    #expect(try await engine.outcome(of: whole) == plain)
    #expect(engine.statistics().cachedPromptTokens > 0)
    #expect(try await rig.stored(whole, plain, in: engine) == rig.expected(whole, plain))
  }

  /// Saved prefixes carry the draft layers' pages, and say so where they don't fit.
  @Test func savedPrefixesCarryDraftPages() async throws {
    let folder = try TemporaryFolder()
    let path = folder.file("prefix")
    let rig = SpeculationRig(model: "deepseek-v3-mtp2", draftRecipes: CacheRecipes(.mxfp4))
    let tokens = prompt(4, length: 45, vocabulary: 128)
    try await rig.engine(drafts: 2).save(prefix: .tokens(tokens), to: path)
    let engine = try rig.engine(drafts: 3)
    try await engine.load(from: path)
    let request = try request(tokens + [9], maxTokens: 12)
    let plain = try await rig.engine(drafts: nil).outcome(of: request)
    #expect(try await engine.outcome(of: request) == plain)
    #expect(engine.statistics().cachedPromptTokens == tokens.count)
    #expect(try await rig.stored(request, plain, in: engine) == rig.expected(request, plain))

    var other = rig
    other.draftRecipes = nil
    for engine in [try other.engine(drafts: 2), try other.engine(drafts: nil)] {
      do {
        try await engine.load(from: path)
        Issue.record("took draft pages of another recipe")
      } catch { #expect("\(error)".contains("draft_")) }
    }
  }

  // MARK: Models

  /// The trained model guesses right most of the time.
  @Test func acceptsGoodDrafts() async throws {
    let directory = TestModels.directory("tiny-deepseek-v3")
    let configuration = try EngineConfiguration(
      recipes: CacheRecipes(.nvfp4), pageSize: 16, poolSize: .tokens(512), speculation: try Speculation())
    let loaded = try ModelRuntime(directory: directory, speculation: configuration.speculation)
    let engine = try Engine(LoadedModel(loaded, configuration: configuration), configuration: configuration)
    let problem =
      "There are 50 badges on the table in front of Tara. Vic gives Tara 69 more. How many badges does Tara have now?"
    var text = ""
    for try await event in engine.generate(
      Request("<|im_start|>user\n\(problem)<|im_end|>\n<|im_start|>assistant\n"))
    {
      switch event {
      case .token(let token): text += token.text
      case .finished(let completion): text += completion.text
      }
    }
    #expect(text.hasSuffix("#### 119"))
    let speculation = engine.statistics().speculation
    #expect(speculation.acceptanceRate > 0.9 && speculation.tokensPerStep > 1.8)
  }

  @Test func needsADraftLayer() throws {
    #expect(throws: CheckpointError.self) { try SpeculationRig(model: "qwen3").engine(drafts: 1) }
    #expect(throws: CheckpointError.self) { try SpeculationRig(model: "deepseek-v2").engine(drafts: 1) }
    #expect(throws: EngineError.self) {
      try Engine(
        LoadedModel(model: FakeModel(), fingerprint: "fake", arithmetic: "fake"),
        configuration: try EngineConfiguration(poolSize: .tokens(64), speculation: try Speculation()))
    }
    #expect(throws: EngineError.self) { try Speculation(draftTokenCount: 0) }
  }
}
