import PagedCache

extension CacheLayout {
  /// Wire names of the two recipes: of keys and values, or of MLA's latent and rotary key.
  var recipeNames: (first: String, second: String) {
    switch self {
    case .mha(let layout): (layout.recipeK.name, layout.recipeV.name)
    case .mla(let layout): (layout.recipeLatent.name, layout.recipeRope.name)
    }
  }

  var isMLA: Bool {
    switch self {
    case .mha: false
    case .mla: true
    }
  }
}
