import CSIMD
import KVQuantization
import PagedCache

/// Where a step's rows go in a layer's records, as plain memory: workers that share a job count no references.
struct LayerStores {
  /// Rows that are written together.
  let runs: UnsafeBufferPointer<GroupRun>
  let regions: UnsafeBufferPointer<CacheRegion>
  /// The layer's record of page 0, and from one page's to the next.
  let records: UnsafeMutableRawPointer
  let pageBytes: Int
  let scales: DecodeScales
  /// Columns of the first key head and the first value head.
  let keys: Int
  let values: Int

  /// Encodes a run of rows: those regions whose values lie in `columns` of x.
  func store(
    _ run: GroupRun, of x: CPUActivations, columns: Range<Int>, level: nb_level,
    _ statistics: inout nb_encode_statistics
  ) {
    var (keyColumn, valueColumn) = (keys, values)
    for region in regions {
      let isKey = region.kind == .key || region.kind == .latent
      let column = isKey ? keyColumn : valueColumn
      if isKey { keyColumn += region.dimension } else { valueColumn += region.dimension }
      guard columns.contains(column) else { continue }
      var target = nb_region(region, record: records + run.page * pageBytes)
      nb_region_store_rows(
        level, &target, Int32(run.slot), Int32(run.rows.count), x.row(run.rows.lowerBound) + column, Int64(x.width),
        scales[region.kind], &statistics)
    }
  }
}
