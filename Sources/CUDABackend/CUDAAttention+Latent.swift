import CKernelSources
import CUDASupport
import KVQuantization
import PagedCache

/// What the kernels of latent attention (MLA) can do. Page sizes, recipes, query lengths and batch are those of the others.
extension CUDAAttention {
  /// kv_lora_rank and qk_rope_head_dim of DeepSeek-V2, V3 and R1.
  public static let latentDimension = Int(NB_LATENT_DIM)
  public static let ropeDimension = Int(NB_ROPE_DIM)
  /// Query heads over the one latent.
  public static let latentHeadCounts = 1...Int(NB_LATENT_MAXIMUM_HEADS)

  static func obstacles(layout: MLALayout, queryHeadCount: Int) -> [String] {
    var reasons: [String] = []
    for (what, recipe, option) in [
      ("latents", layout.recipeLatent, "--kv-cache-dtype nvfp4"),
      ("rotary keys", layout.recipeRope, "--kv-cache-dtype-rope bf16"),
    ] where !recipes.contains(recipe) {
      reasons.append(
        "\(what) in \(recipe.name): expected one of \(recipes.map(\.name).joined(separator: ", ")); try \(option)")
    }
    for (what, found, expected) in [
      ("a latent", layout.latentDimension, latentDimension), ("a rotary key", layout.ropeDimension, ropeDimension),
    ] where found != expected {
      reasons.append("\(what) of \(found) values: expected \(expected); try the cpu backend")
    }
    if !pageSizes.contains(layout.pageSize) {
      reasons.append("a page size of \(layout.pageSize): expected one of \(list(pageSizes)); try --page-size 64")
    }
    if !latentHeadCounts.contains(queryHeadCount) {
      reasons.append(
        """
        \(queryHeadCount) query heads over one latent: expected \(latentHeadCounts.lowerBound) to \
        \(latentHeadCounts.upperBound); try the cpu backend
        """)
    }
    return reasons
  }

  /// Every kernel for rotary keys in BF16, the default, and in the latent's recipe.
  static var latentInstances: [KernelInstance] {
    var instances = [PagedLatentDecode.mergeInstance]
    for recipe in recipes {
      for rope in [.bf16, recipe] {
        guard
          let layout = try? MLALayout(
            latentDimension: latentDimension, ropeDimension: ropeDimension, pageSize: 64, recipeLatent: recipe,
            recipeRope: rope)
        else { continue }
        for instance in [PagedLatentDecode.instance(layout: layout)]
          + ActivationType.allCases.map({ PagedLatentStore.instance(layout: layout, rowType: $0) })
        where !instances.contains(instance) { instances.append(instance) }
      }
    }
    return instances
  }
}

extension MLALayout {
  /// log2 of the page size, for those that the kernels take.
  var pageShift: Int32 { Int32(pageSize.trailingZeroBitCount) }

  /// "latents of 512 + 64, pages of 64, nvfp4/bf16": for launch descriptions.
  var kernelDescription: String {
    "latents of \(latentDimension) + \(ropeDimension), pages of \(pageSize), \(recipeLatent.name)/\(recipeRope.name)"
  }
}
