import KVQuantization
import Operators
import PagedCache

/// A loaded model as the engine sees it: token ids in, logits out, keys and values in a pool.
public protocol LanguageModel: AnyObject {
  var vocabularySize: Int { get }
  /// Layers that keep keys and values.
  var layerCount: Int { get }
  /// Tokens that positions are defined for.
  var contextLimit: Int { get }

  /// The record layout of this model's cache.
  /// - Throws: `PagedCacheError` where a recipe can't store this geometry.
  func cacheLayout(_ recipes: CacheRecipes, pageSize: Int) throws(PagedCacheError) -> CacheLayout

  /// Runs one step: stores the keys and values of every new token, then writes float32 logits [logitsRows.count, vocabularySize].
  ///
  /// A row's logits are a function of its sequence's tokens and the pool's recipes alone, bit for bit: the batch, the chunk and the
  /// number of threads don't matter.
  func forward(_ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>) throws
}

/// What is stored how.
public struct CacheRecipes: Hashable, Sendable {
  /// Keys; MLA: the latent.
  public var key: KVRecipe
  /// Values; MLA has none of its own.
  public var value: KVRecipe
  /// MLA's rotary key.
  public var rope: KVRecipe

  /// - Parameter rope: by default bf16, or f32 beside f32 keys.
  public init(key: KVRecipe, value: KVRecipe, rope: KVRecipe? = nil) {
    self.key = key
    self.value = value
    self.rope = rope ?? (key == .f32 ? .f32 : .bf16)
  }

  public init(_ recipe: KVRecipe) { self.init(key: recipe, value: recipe) }
}

extension CacheRecipes {
  /// The record layout of a geometry.
  /// - Throws: `PagedCacheError` where a recipe can't store it.
  public func layout(of geometry: KVGeometry, pageSize: Int) throws(PagedCacheError) -> CacheLayout {
    switch geometry {
    case .mha(let kvHeadCount, let headDimension):
      .mha(
        try MHALayout(
          kvHeadCount: kvHeadCount, headDimension: headDimension, pageSize: pageSize, recipeK: key, recipeV: value))
    case .mla(let latentDimension, let ropeDimension):
      .mla(
        try MLALayout(
          latentDimension: latentDimension, ropeDimension: ropeDimension, pageSize: pageSize, recipeLatent: key,
          recipeRope: rope))
    }
  }
}
