import CUDABackend
import CUDASupport
import KVQuantization
import PagedCache
import Testing

@Suite struct CUDAAttentionTests {
  private func layout(
    heads: Int = 4, dimension: Int = 128, pageSize: Int = 64, recipe: KVRecipe = .nvfp4
  ) throws -> MHALayout {
    try MHALayout(
      kvHeadCount: heads, headDimension: dimension, pageSize: pageSize, recipeK: recipe, recipeV: recipe)
  }

  @Test func whatTheKernelsTakeHasNoObstacles() throws {
    for recipe in CUDAAttention.recipes {
      for dimension in CUDAAttention.headDimensions {
        for pageSize in CUDAAttention.pageSizes {
          let layout = try layout(dimension: dimension, pageSize: pageSize, recipe: recipe)
          for group in CUDAAttention.groupSizes {
            #expect(CUDAAttention.obstacles(layout: .mha(layout), queryHeadCount: 4 * group).isEmpty)
          }
        }
      }
    }
  }

  @Test func everyObstacleIsNamedWithItsValue() throws {
    let layout = try layout(heads: 3, dimension: 80, pageSize: 48, recipe: .f32)
    let reasons = CUDAAttention.obstacles(layout: .mha(layout), queryHeadCount: 51)
    #expect(reasons.count == 5)
    for (reason, part) in zip(reasons, ["keys in f32", "values in f32", "80", "48", "51 query heads over 3 KV heads"]) {
      #expect(reason.contains(part) && reason.contains("expected"), "\(reason)")
    }
    #expect(CUDAAttention.obstacles(layout: .mha(try self.layout()), queryHeadCount: 6).count == 1)
    #expect(CUDAAttention.obstacles(layout: .mha(try self.layout()), queryHeadCount: 0).count == 1)
  }

  @Test func splitsStayBelowTheirBounds() {
    for splitting in [PagedDecode.Splitting(target: 33, minimumTokens: 512), .init(target: 1, minimumTokens: 1)] {
      for length in [1, 2, 127, 128, 129, 511, 512, 513, 16_895, 16_896, 16_897, 131_072, 1_048_576] {
        let count = splitting.count(contextLength: length)
        #expect(count >= 1 && count <= 160)
        #expect(count <= splitting.maximumCount(contextLength: length))
      }
    }
    let splitting = PagedDecode.Splitting(target: 33, minimumTokens: 512)
    for length in 1...20_000 {
      #expect(splitting.count(contextLength: length) <= splitting.maximumCount(contextLength: 20_000))
    }
  }

  /// The default on an H100 with four KV heads: what docs/performance-gpu.md measures.
  @Test func shortRequestsAreCutFinelyAndLongOnesEvenly() {
    let splitting = PagedDecode.Splitting(target: 66, minimumTokens: 2048)
    let expected = [
      1: 1, 1024: 1, 1025: 3, 2048: 4, 4096: 6, 8192: 6, 16_384: 8, 32_768: 16, 65_536: 32, 131_072: 64, 1_048_576: 66,
    ]
    for (length, count) in expected {
      #expect(splitting.count(contextLength: length) == count, "\(length) tokens")
    }
  }

  @Test func plansThatCannotBeAreRefusedWithReasons() throws {
    func configuration(_ change: (inout PagedDecode.Configuration) -> Void) throws -> PagedDecode.Configuration {
      var configuration = PagedDecode.Configuration(
        layout: try layout(), queryHeadCount: 64, softmaxScale: 0.088, maximumBatch: 4, maximumContextLength: 1000,
        splitting: .init(target: 33, minimumTokens: 512))
      change(&configuration)
      return configuration
    }
    try PagedDecode.validate(configuration { _ in })
    let wrong: [(inout PagedDecode.Configuration) -> Void] = [
      { $0.queryLength = 9 }, { $0.queryLength = 0 }, { $0.maximumBatch = 0 }, { $0.maximumBatch = 1025 },
      { $0.maximumContextLength = 0 }, { $0.maximumContextLength = 1 << 31 },
      { $0.splitting = .init(target: 0, minimumTokens: 1) }, { $0.softmaxScale = .nan }, { $0.queryHeadCount = 65 },
    ]
    for change in wrong {
      let configuration = try configuration(change)
      #expect(throws: CUDAError.self) { try PagedDecode.validate(configuration) }
    }
  }
}
