import Checkpoints
import KVQuantization
import ModelFamilies
import Operators
import PagedCache

/// What the draft layers will keep: pages beside the main model's, of the same geometry, with recipes of their own.
struct DraftPlan {
  let recipes: CacheRecipes
  let layout: CacheLayout
  let layerCount: Int

  var pageBytes: Int { layout.recordBytes * layerCount }

  /// - Returns: nil without speculation.
  /// - Throws: `CheckpointError` for a model without draft layers, `SupportError` where the main model's backends can't read such
  ///   pages, `PagedCacheError`.
  init?(
    _ model: ModelConfiguration, _ request: AttentionRequest, _ choice: AttentionChoice,
    _ configuration: EngineConfiguration, path: String
  ) throws {
    guard let speculation = configuration.speculation else { return nil }
    layerCount = try ModelLoader.draftLayerCount(model, path: path)
    try request.checkDrafts(speculation, model, choice)
    recipes = speculation.recipes ?? configuration.recipes
    layout = try recipes.layout(of: model.kvGeometry, pageSize: configuration.pageSize)
  }

  /// Of a loaded model.
  /// - Returns: nil without speculation.
  /// - Throws: `EngineError.invalidConfiguration` for a model without draft layers, `PagedCacheError`.
  init?(_ model: any LanguageModel, _ configuration: EngineConfiguration) throws {
    guard let speculation = configuration.speculation else { return nil }
    guard let model = model as? any DraftingModel, model.draftLayerCount > 0 else {
      throw EngineError.invalidConfiguration(
        option: "--speculative-algorithm",
        expected: "a model loaded with a layer for multi-token prediction, such as DeepSeek-V3",
        found: "one without")
    }
    recipes = speculation.recipes ?? configuration.recipes
    layout = try model.cacheLayout(recipes, pageSize: configuration.pageSize)
    layerCount = model.draftLayerCount
  }

  /// - Parameter scales: one pair a layer; nil is 1 for all.
  /// - Throws: `PagedCacheError`.
  func pool(pageCount: Int, scales: [DecodeScales]?) throws(PagedCacheError) -> PagePool {
    try PagePool(
      layout: layout, layerCount: layerCount, pageCount: pageCount,
      scales: scales ?? Array(repeating: .one, count: layerCount))
  }
}

extension AttentionRequest {
  /// The backends that read the main model's pages read the draft layers' too.
  /// - Throws: `SupportError` where they can't.
  func checkDrafts(
    _ speculation: Speculation, _ model: ModelConfiguration, _ choice: AttentionChoice
  ) throws(SupportError) {
    guard let recipes = speculation.recipes, recipes != self.recipes else { return }
    var request = self
    (request.recipes, request.prefill, request.decode) = (recipes, choice.prefill, choice.decode)
    _ = try request.resolve(model)
  }
}
