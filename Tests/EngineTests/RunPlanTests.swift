import CPUBackend
import CSIMD
import Checkpoints
import Engine
import KVQuantization
import ModelFamilies
import Testing

/// What a plan says before anything is loaded is what the engine then is.
@Suite struct RunPlanTests {
  @Test(arguments: ["tiny-qwen3", "tiny-deepseek-v3"], [KVRecipe.bf16, .fp8E4M3, .nvfp4])
  func theEngineIsAsPlanned(name: String, recipe: KVRecipe) async throws {
    let directory = TestModels.directory(name)
    let isMLA = name == "tiny-deepseek-v3"
    let configuration = try EngineConfiguration(
      recipes: CacheRecipes(recipe), pageSize: 32, poolSize: .tokens(1000), contextLength: 500, threadCount: 1,
      speculation: isMLA ? try Speculation(recipes: CacheRecipes(.fp8E4M3)) : nil)
    let precision = isMLA ? AttentionPrecision.fast : .full
    let attention = AttentionRequest(precision: precision, recipes: configuration.recipes, pageSize: 32)
    let plan = try RunPlan(directory: directory, attention: attention, configuration: configuration)
    let runtime = try ModelRuntime(
      directory: directory, attention: attention, threadCount: 1, speculation: configuration.speculation)
    let loaded = try LoadedModel(runtime, configuration: configuration, tokenizer: plan.tokenizer)
    #expect(plan.scales.layers == loaded.scales)
    #expect(plan.warnings == loaded.warnings)
    #expect(plan.attention.decode == loaded.attentionDecision.name)
    #expect(
      loaded.attentionDecision.reason.contains("rounds to 16 bits")
        == (precision == .fast && AttentionPrecision.matters(at: nb_level_active(), key: recipe, value: recipe)))
    let engine = try Engine(loaded, configuration: configuration)
    func planned(_ name: String) -> Int? {
      plan.decisions.first { $0.section == "kv_cache" && $0.name == name }?.value.intValue
    }
    #expect(planned("tokens") == engine.poolTokens && plan.limits.poolTokens == 1024)
    #expect(planned("bytes") == engine.poolBytes)
    #expect(planned("bytes_per_token") == engine.statistics().kvCache.bytesPerToken)
    #expect(planned("context_length") == engine.contextLength)
    let arithmetic = engine.identity.fields.first { $0.name == "arithmetic" }
    #expect(
      arithmetic?.value.contains("-\(precision.rawValue)-") == true
        && arithmetic?.value.hasSuffix("-v\(nb_arithmetic_version())") == true,
      "saved prefixes carry the attention's precision and the kernels' version")
    #expect(plan.limits.vocabularySize == engine.vocabularySize)
    #expect(plan.decisions.first { $0.name == "pages" }?.reason == engine.poolReason)
    await engine.shutDown()
  }

  /// Read without mapping, scales are the same as read from the checkpoint.
  @Test(arguments: ["tiny-qwen3", "tiny-deepseek-v3"])
  func previewsScales(name: String) throws {
    let scaled = try KVScaleTests.ScaledCheckpoint(name)
    let checkpoint = try Checkpoint(directory: scaled.path)
    let preview = try KVScalePreview(directory: scaled.path, configuration: checkpoint.configuration)
    #expect(preview.scales == (try KVScaleSet(checkpoint: checkpoint)) && preview.scales?.isEmpty == false)
    #expect(preview.obstacle == nil)
    let bytes = checkpoint.files.reduce(0) { sum, file in
      sum + file.tensorNames.reduce(0) { $0 + ((try? file.tensor(named: $1).bytes.count) ?? 0) }
    }
    // The headers are in it too.
    #expect(try #require(preview.weightBytes) > bytes)
  }
}
