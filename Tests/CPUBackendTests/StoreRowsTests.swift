import CPUBackend
import CSIMD
import KVQuantization
import TestSupport
import Testing

/// Storing rows of consecutive tokens together gives the bytes and the counts of storing them one by one.
@Suite struct StoreRowsTests {
  @Test(arguments: KVRecipe.allCases)
  func rowsTogetherAreRowsOneByOne(recipe: KVRecipe) {
    let slots = 48
    let stride = 600
    var random = SplitMix(seed: 3)
    let input = random.uniform(slots * stride).map { $0 * 8 }
    for kind in [NB_REGION_KEY, NB_REGION_VALUE, NB_REGION_LATENT, NB_REGION_ROPE] {
      for dimension in [32, 96, 128, 160, 576] + (recipe == .mxfp4 ? [] : [48, 144]) {
        // Whole groups, a short run, and runs that begin or end inside a group.
        for (token, count) in [(0, 48), (16, 16), (3, 5), (5, 43), (0, 33)] {
          for level in supportedLevels {
            let codeBytes = recipe.codeBytes(dimension: dimension) * slots
            let scaleBytes = recipe.scaleBytes(dimension: dimension) * slots
            func stored(together: Bool) -> ([UInt8], [UInt8], EncodeStatistics) {
              var codes = [UInt8](repeating: 0xA5, count: codeBytes + 64)
              var scales = [UInt8](repeating: 0xA5, count: scaleBytes + 64)
              var statistics = nb_encode_statistics()
              codes.withUnsafeMutableBufferPointer { codes in
                scales.withUnsafeMutableBufferPointer { scales in
                  input.withUnsafeBufferPointer { rows in
                    guard let rows = rows.baseAddress else { return }
                    var region = nb_region(
                      recipe: recipe.kernelRecipe, kind: Int32(kind), dimension: Int32(dimension),
                      codes: codes.baseAddress, scales: scales.baseAddress)
                    if together {
                      nb_region_store_rows(
                        level, &region, Int32(token), Int32(count), rows, Int64(stride), 0.3, &statistics)
                    } else {
                      for row in 0..<count {
                        nb_region_store(
                          level, &region, Int32(token + row), rows + row * stride, 0.3, &statistics)
                      }
                    }
                  }
                }
              }
              return (codes, scales, EncodeStatistics(statistics))
            }
            let (one, all) = (stored(together: false), stored(together: true))
            #expect(
              one == all,
              "\(recipe.name) kind \(kind) dimension \(dimension) tokens \(token) + \(count) level \(level.rawValue)"
            )
          }
        }
      }
    }
  }
}
